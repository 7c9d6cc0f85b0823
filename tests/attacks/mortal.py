"""The real server or client, killed without a word at a moment that is given.

python mortal.py server N [options]    dies before the Nth thing that it does to the
                                       disk or sends to a client, and lists what it did
python mortal.py client N [options]    dies before it sends for the Nth time

What was about to be done is then in the file that MORTAL_FILE names. With words in
MORTAL_AT only what they begin is counted: "disk: rename checkpoints". With a number in
MORTAL_ERRNO a server lives on, and its disk fails with that error from then on.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utilities.processes import one_core, run_program

PRIMITIVES = ("open", "write", "sync", "truncate", "rename", "remove", "sync_folder")


class Fate:
    """Counts what is done, and ends the process."""

    def __init__(self, moment: int) -> None:
        self._left = moment
        self._file = Path(os.environ["MORTAL_FILE"])
        self._errno = int(os.environ.get("MORTAL_ERRNO", "0"))
        self._lock = threading.Lock()
        self._at = os.environ.get("MORTAL_AT", "")

    def strike(self, what: str) -> None:
        """Die now, or fail from now on, if it is time."""
        if not what.startswith(self._at):
            return
        with self._lock:  # another thread does not end it before the note is written
            self._count(what)

    def _count(self, what: str) -> None:
        self._left -= 1
        if self._left > 0:
            return
        if not self._left:
            self._file.write_text(what, encoding="utf-8")
        if not self._errno:
            os.kill(os.getpid(), signal.SIGKILL)
        if what.startswith("disk"):
            raise OSError(self._errno, os.strerror(self._errno))

    def lies_on(self, owner: Any, name: str, what: str) -> None:
        """Strike before each call of a method."""
        real = getattr(owner, name)

        def mortal(*args: Any, **settings: Any) -> Any:
            names = [each for each in args if isinstance(each, Path)]
            self.strike(" ".join([what, *(path.parent.name for path in names[-1:])]))
            return real(*args, **settings)

        setattr(owner, name, mortal)


def server(moment: int, arguments: list[str]) -> None:
    """Serve until it is time."""
    from utilities.communication import Hub
    from utilities.disk import Disk
    from utilities.options import parse_server
    from utilities.serving import serve

    fate = Fate(moment)
    for name in PRIMITIVES:
        fate.lies_on(Disk, name, f"disk: {name}")
    fate.lies_on(Hub, "send", "send")
    serve(parse_server(arguments))


def client(moment: int, arguments: list[str]) -> None:
    """Take part until it is time."""
    from utilities.client import lend
    from utilities.clientoptions import parse_client
    from utilities.connection import Connection

    Fate(moment).lies_on(Connection, "send", "send")
    lend(parse_client(arguments, "mortal"))


def work() -> None:
    """Do as the command line asks."""
    role, moment, *arguments = sys.argv[1:]
    {"server": server, "client": client}[role](int(moment), arguments)


if __name__ == "__main__":
    one_core()
    sys.exit(run_program("mortal.py", work))
