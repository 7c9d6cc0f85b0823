"""What a session tells those who only look: who is here, what has happened.

    session.json   how the session stands and who is here; replaced about once a second
    events.jsonl   {"time": ..., "step": 12, "kind": "join", "text": "lab-3 joined; 2
                   here"}, one a line; the newest of half a megabyte

Owns these two files, both ways. Does not own what is worth telling, or who looks.

Nobody resumes from them, so they are not worth a run: what the disk does not take is
left out, and nothing waits for it. For the same reason they are not forced to the disk.
What is read of them may have been written by anybody: it is checked, field by field.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from utilities.addresses import ANY, dialable, place
from utilities.events import Note
from utilities.logfiles import bytes_of
from utilities.misc import Clock
from utilities.peers import Peer
from utilities.protocol import Hello
from utilities.tally import Closed

SESSION, EVENTS = "session.json", "events.jsonl"
SECONDS = 1.0  # between two versions of session.json
CLIENTS_A_SECOND = 100  # told about; with more clients it is written more rarely
FRESH_SECONDS = 15.0  # after which a session that says nothing is not believed in
RECENT = 100  # steps that a client's rate and lateness are counted over
EVENTS_BYTES = 512 << 10  # of events.jsonl; then the older half goes
MOST_EVENTS = 200  # that are read
TEXT = 400  # characters of one event
_LARGEST = 1e18

WAITING, TRAINING = "waiting for clients", "training"
STOPPING, ENDED = "stopping", "ended"
NOT_RUNNING = "not running"  # one that says nothing any more
STATES = (WAITING, TRAINING, STOPPING, ENDED)


# Writing.


def client_lines(
    host: str, port: int, addresses: Sequence[str], *, open_to_all: bool = False
) -> list[str]:
    """Return the command lines that start clients of a server elsewhere.

    Args:
        host: that the server listens on.
        port: of the server.
        addresses: of this machine, for a server that listens on all of them.
        open_to_all: it asks nobody for a code.
    """
    hosts = (addresses or [dialable(host)]) if host in ANY else [host]
    more = " --noAuth" if open_to_all else ""
    return [f"python basicClient.py {place(each, port)}{more}" for each in hosts]


@dataclass
class _Account:
    """What a client has done in this session."""

    machine: str
    joined: float  # seconds since 1970
    trials: int = 0
    steps: deque[tuple[float, int]] = field(
        default_factory=lambda: deque(maxlen=RECENT)
    )  # moment on the clock, and its trials until then
    late: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, now: float, trials: int) -> None:
        """Count a step to which it has given trials."""
        self.trials += trials
        self.steps.append((now, self.trials))
        self.late.append(False)

    def rate(self, now: float) -> float | None:
        """Return its trials a second over the last steps."""
        if not self.steps or now <= self.steps[0][0]:
            return None
        began, before = self.steps[0]
        return round((self.trials - before) / (now - began), 1)


@dataclass(frozen=True)
class End:
    """When a session ends by itself, as far as that is known."""

    step: int | None = None  # it ends before
    time: float | None = None  # seconds since 1970


class SessionLog:
    """Tell how a session stands; errors of the disk are never passed on."""

    def __init__(
        self,
        folder: Path,
        join: Sequence[str],
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        *,
        last_step: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Begin.

        Args:
            folder: of the run, which is open with its lock.
            join: command lines of clients, without any secret: whoever reads the run's
                files gets to see them.
            clock: for spans of time.
            wall: seconds since 1970.
            last_step: that the session comes to.
            seconds: that it lasts.
        """
        self._end = End(last_step, None if seconds is None else wall() + seconds)
        self._folder = folder
        self._join = list(join)
        self._clock, self._wall = clock, wall
        self._accounts: dict[int, _Account] = {}
        self._next = -1e18  # moment on the clock
        self._pending: list[str] = []

    def met(self, client: int, hello: Hello, address: str) -> None:
        """Note what kind of machine a client runs on."""
        words = f"Python {hello.python}, numpy {hello.numpy}"
        machine = f"{address}, {words}" if address else words
        self._accounts[client] = _Account(machine, self._wall())

    def closed(self, closed: Closed, peers: Sequence[Peer]) -> None:
        """Count who has given trials to a step, and who still owes an answer."""
        now = self._clock()
        given = {name: trials for name, trials, _ in closed.contributions}
        for peer in peers:
            account = self._accounts.get(peer.id)
            if account is None:
                continue
            trials = given.get(peer.name)
            if trials is not None:
                account.add(now, trials)
            elif peer.owes(closed.step):
                account.late.append(True)

    def note(self, step: int, note: Note) -> None:
        """Log an event."""
        kind = note.kind or ("warning" if note.warning else "note")
        event = {
            "time": round(self._wall(), 3),
            "step": step,
            "kind": kind,
            "warning": note.warning,
            "text": note.text[:TEXT],
        }
        self._pending.append(json.dumps(event) + "\n")

    def tell(self, step: int, peers: Sequence[Peer], *, ends: bool = False) -> None:
        """Write how things stand, if the last time was long enough ago."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + max(SECONDS, len(peers) / CLIENTS_A_SECOND)
        state = STOPPING if ends else TRAINING if peers else WAITING
        self._write(state, step, peers)

    def end(self, step: int) -> None:
        """Write that the session has ended."""
        self._write(ENDED, step, ())

    def _write(self, state: str, step: int, peers: Sequence[Peer]) -> None:
        here = {peer.id for peer in peers}
        self._accounts = {k: a for k, a in self._accounts.items() if k in here}
        content = {
            "time": round(self._wall(), 3),
            "state": state,
            "step": step,
            "join": self._join,
            "endStep": self._end.step,
            "endTime": None if self._end.time is None else round(self._end.time, 3),
            "clients": [self._client(peer) for peer in peers],
        }
        text = json.dumps(content, separators=(",", ":"))
        _leniently(lambda: _replace(self._folder / SESSION, text.encode()))
        lines, self._pending = "".join(self._pending), []
        if lines:
            _leniently(lambda: _append(self._folder / EVENTS, lines.encode()))

    def _client(self, peer: Peer) -> dict[str, Any]:
        account = self._accounts.get(peer.id) or _Account("", self._wall())
        return {
            "name": peer.name,
            "state": _state(peer),
            "machine": account.machine,
            "joined": round(account.joined, 3),
            "trials": account.trials,
            "rate": account.rate(self._clock()),
            "late": account.late.count(True),
            "lateOf": len(account.late),
        }


def _state(peer: Peer) -> str:
    """Return what a client is at, in words."""
    if peer.ready:
        return "working" if peer.waited else "late: not waited for"
    return f"gets the state again: {peer.reason}" if peer.reason else "gets the state"


def _leniently(write: Callable[[], None]) -> None:
    with suppress(OSError):
        write()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)
        size = file.tell()
    if size > EVENTS_BYTES:
        half = path.read_bytes()[-EVENTS_BYTES // 2 :]
        _replace(path, half[half.find(b"\n") + 1 :])


# Reading.


@dataclass(frozen=True)
class Session:
    """How a session stood when it last said so."""

    time: float  # seconds since 1970
    state: str  # one of `STATES`
    step: int
    join: tuple[str, ...]
    clients: tuple[dict[str, Any], ...]
    end: End

    def state_at(self, now: float) -> str:
        """Return the state, in words; one that says nothing any more has ended."""
        if self.state != ENDED and abs(now - self.time) > FRESH_SECONDS:
            return NOT_RUNNING
        return self.state


_CLIENT: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "state", "machine"), str),
    **dict.fromkeys(("joined", "trials", "rate", "late", "lateOf"), (int, float)),
}


def read_session(folder: Path) -> Session | None:
    """Return what session.json says; None where there is none, or it makes no sense.

    Raises:
        RunError: it cannot be read.
    """
    content = _object(bytes_of(folder / SESSION))
    if content is None or content.get("state") not in STATES:
        return None
    moment, step = content.get("time"), content.get("step")
    if not (_sensible(moment) and _sensible(step)):
        return None
    join, clients = (content.get(key) for key in ("join", "clients"))
    last, end = (content.get(key) for key in ("endStep", "endTime"))
    return Session(
        time=float(moment),
        state=content["state"],
        step=int(step),
        join=tuple(x for x in _items(join) if isinstance(x, str)),
        clients=tuple(_checked(x) for x in _items(clients) if isinstance(x, dict)),
        end=End(
            int(last) if _sensible(last) else None,
            float(end) if _sensible(end) else None,
        ),
    )


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _checked(client: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a client; None for what makes no sense."""
    values = {key: client.get(key) for key in _CLIENT}
    return {
        key: value
        if isinstance(value, _CLIENT[key])
        and (isinstance(value, str) or _sensible(value))
        else None
        for key, value in values.items()
    }


def _sensible(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 <= value < _LARGEST


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the newest events, oldest first; lines that make no sense are left out.

    Raises:
        RunError: the file cannot be read.
    """
    lines = bytes_of(folder / EVENTS).split(b"\n")[:-1]
    found = (_object(line) for line in lines[-MOST_EVENTS:])
    return [
        {
            "time": event["time"],
            "step": event["step"],
            "kind": event["kind"],
            "warning": event.get("warning") is True,
            "text": event["text"][:TEXT],
        }
        for event in found
        if event is not None
        and _sensible(event.get("time"))
        and _sensible(event.get("step"))
        and all(isinstance(event.get(key), str) for key in ("kind", "text"))
    ]
