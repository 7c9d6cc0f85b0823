"""The real client; it also writes step and digest of each result to a file.

python recording_client.py FILE HOST:PORT [options]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utilities.processes import one_core, run_program


def work() -> None:
    """Take part as the command line asks, and take notes."""
    from utilities.client import lend
    from utilities.clientoptions import parse_client
    from utilities.protocol import Message, Result
    from utilities.worker import Worker

    class Recording(Worker):
        def work(self) -> list[Message]:
            replies = super().work()
            for reply in replies:
                if isinstance(reply, Result):
                    record.write(f"{reply.step} {reply.digest.hex()}\n")
            record.flush()
            return replies

    from utilities import client

    setattr(client, "Worker", Recording)  # noqa: B010 - mypy minds an assignment
    with Path(sys.argv[1]).open("a", encoding="ascii") as record:
        lend(parse_client(sys.argv[2:], "recording"))


if __name__ == "__main__":
    one_core()
    sys.exit(run_program("recording_client.py", work))
