"""The real client; it tells all that concerns its replica, and comes back at once.

python telling_client.py FILE HOST:PORT [options]

The file has one JSON object a line: {"kind": "welcome" | "update" | "result", ...}.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utilities.processes import one_core, run_program

PAUSES = {"FIRST_PAUSE": 0.05, "LONGEST_PAUSE": 0.2}  # seconds; of users 1 to 60


def work() -> None:
    """Take part as the command line asks, and tell."""
    from utilities import client, manners
    from utilities.clientoptions import parse_client
    from utilities.evolution import Update
    from utilities.misc import sha256
    from utilities.protocol import Message, Result, Resume, Welcome
    from utilities.wire import encode
    from utilities.worker import Worker

    class Telling(Worker):
        def handle(self, message: Message) -> None:
            super().handle(message)
            if isinstance(message, Welcome | Resume):
                tell(kind="welcome", step=message.step)
            if isinstance(message, Update):
                parts = [bytes(part) for part in encode(message)]
                segments = [(s.seed, s.first, s.groups) for s in message.segments]
                tell(
                    kind="update",
                    step=message.step,
                    trials=message.trials,
                    segments=segments,
                    digest=sha256(*parts).hex(),
                )

        def work(self) -> list[Message]:
            replies = super().work()
            for reply in replies:
                if isinstance(reply, Result):
                    segments = [(s.seed, s.first, s.groups) for s in reply.segments]
                    tell(
                        kind="result",
                        step=reply.step,
                        segments=segments,
                        digest=reply.digest.hex(),
                    )
            return replies

    def tell(**what: object) -> None:
        record.write(json.dumps(what) + "\n")
        record.flush()

    for name, value in PAUSES.items():
        assert hasattr(manners, name), name
        setattr(manners, name, value)
    setattr(client, "Worker", Telling)  # noqa: B010 - it is not meant to be replaced
    with Path(sys.argv[1]).open("a", encoding="ascii") as record:
        client.lend(parse_client(sys.argv[2:], "telling"))


if __name__ == "__main__":
    one_core()
    sys.exit(run_program("telling_client.py", work))
