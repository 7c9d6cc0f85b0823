"""Hostile bytes, read in a child process in which every audit event is noted.

The interpreter tells its audit hooks of each import, compile, exec, open, call of the
system and more (PEP 578), and a hook can never be taken off again: hence a process of
its own. It measures, too: processor time and memory that an attempt takes.

    figures = read_in_child("frames", seed, count)   # in a test
    python -m tests.attacks.audited frames 1 1000    # by hand
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.attacks import hostile_pickles, mutations
from tests.messages import SAMPLES, comparable, exact_bytes, opening_of, sender_of
from utilities.errors import ProtocolError
from utilities.protocol import KIND_OF, Message
from utilities.wire import Inbox, Side, encode

ROOT = Path(__file__).resolve().parents[2]
MEBIBYTE = 1 << 20
PARAMETERS = 4096  # weights that a state may have
TOGETHER = 4  # attempts of one session, unless one is refused before
HARMLESS = {"builtins.id"}  # what a repr asks for, to notice that it goes in circles
LOOK_EACH = 256  # attempts between two looks at the memory
PROVE_EACH = 16  # messages of which one is written and read again


class Attempt(NamedTuple):
    """What a hostile peer sends."""

    side: Side
    opening: bytes  # legal: what comes after it is read in the phase where it hurts
    pieces: tuple[bytes, ...]


@dataclass
class Figures:
    """What became of many attempts."""

    attempts: int = 0
    refused: int = 0
    messages: int = 0  # that were read
    proved: int = 0  # of them, by writing and reading them again
    stray: list[str] = field(default_factory=list)  # exceptions of any other kind
    seen: list[str] = field(default_factory=list)  # audit events
    worst: float = 0.0  # seconds of processor time of one attempt
    slowest: str = ""  # that attempt
    growth: int | None = None  # bytes of memory at the worst moment; None: not known
    seconds: float = 0.0

    def assert_harmless(self, *, worst: float, growth: int) -> None:
        """Hold that nothing but `ProtocolError` came of it, soon and in little memory.

        Args:
            worst: seconds of processor time that one attempt may take.
            growth: bytes of memory that all of them may take.
        """
        assert self.stray == []
        assert self.seen == []
        assert self.worst <= worst, f"{self.worst:.3f} s for {self.slowest}"
        assert self.growth is None or self.growth < growth

    def __str__(self) -> str:
        memory = "?" if self.growth is None else f"{self.growth / MEBIBYTE:.1f}"
        return (
            f"{self.attempts:,} attempts, {self.refused:,} refused, {self.messages:,} "
            f"messages read; worst {1000 * self.worst:.1f} ms, memory + {memory} MiB, "
            f"{len(self.stray)} other exceptions, {len(self.seen)} audit events, "
            f"{self.seconds:.0f} s"
        )


# In the test.


def start_child(*words: object) -> "subprocess.Popen[bytes]":
    """Start a child; the words are those of `main`."""
    command = [sys.executable, "-m", "tests.attacks.audited", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)


def figures_of(child: "subprocess.Popen[bytes]", patience: float = 500.0) -> Figures:
    """Wait for a child and return what it found."""
    try:
        output, _ = child.communicate(timeout=patience)
    finally:
        child.kill()
    assert child.returncode == 0, f"the child died: status {child.returncode}"
    return Figures(**json.loads(output))


def read_in_child(*words: object) -> Figures:
    """Return what a child finds."""
    return figures_of(start_child(*words))


# In the child.


class Memory:
    """The resident memory of this process, read without opening anything."""

    def __init__(self) -> None:
        """Open what is to be read, where there is such a file (Linux)."""
        self._file: int | None = None
        if Path("/proc/self/statm").exists():
            self._file = os.open("/proc/self/statm", os.O_RDONLY)
            self._page = os.sysconf("SC_PAGE_SIZE")

    def resident(self) -> int | None:
        """Return bytes."""
        if self._file is None:
            return None
        return int(os.pread(self._file, 100, 0).split()[1]) * self._page


class Watch:
    """Feed attempts to inboxes and note all that comes of it."""

    def __init__(self) -> None:
        """Prepare; the hook listens only while something is fed."""
        self.figures = Figures()
        self._listening = False
        self._session: list[Attempt] = []  # that the inbox has read, none refused
        self._inbox = Inbox(Side.CLIENT)
        self._memory = Memory()
        self._before = self._memory.resident()
        self._most = self._before
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._listening or event in HARMLESS:
            return
        if len(self.figures.seen) < 20:
            self.figures.seen.append(f"{event} {arguments!r:.100}")

    def rest(self) -> None:
        """Take the memory in use for that before all attempts."""
        self._before = self._most = self._memory.resident()
        self.figures = Figures()

    def _open(self, attempt: Attempt) -> Inbox:
        """Return an inbox that stands where an attempt hurts."""
        last = self._session[-1] if self._session else None
        same = last is not None and last[:2] == attempt[:2] and attempt.opening != b""
        if not same or len(self._session) == TOGETHER:
            self._session = []
            self._inbox = Inbox(attempt.side, PARAMETERS)
            self._inbox.feed(attempt.opening)
            list(self._inbox.messages())
        self._session.append(attempt)
        return self._inbox

    def feed(self, attempt: Attempt, inbox: Inbox | None = None) -> None:
        """Let an inbox read an attempt."""
        figures, inbox = self.figures, inbox or self._open(attempt)
        read: list[Message] = []
        began = time.process_time()
        self._listening = True
        try:
            for piece in attempt.pieces:
                inbox.feed(piece)
                read += inbox.messages()
        except ProtocolError:
            figures.refused += 1
            self._session = []
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a defect
            figures.stray.append(f"{error!r:.200} of {self._session!r:.2000}")
            self._session = []
        self._listening = False
        took = time.process_time() - began
        if took > figures.worst:
            figures.worst = took
            figures.slowest = repr(attempt)[:2000]
        self._count(read)

    def _count(self, read: list[Message]) -> None:
        self.figures.attempts += 1
        self.figures.messages += len(read)
        if self.figures.attempts % LOOK_EACH == 0:
            self.look()
        for number, message in enumerate(read, self.figures.messages):
            if number % PROVE_EACH == 0:
                self.figures.proved += 1
                assert comparable(read_again(message)) == comparable(message)

    def look(self) -> None:
        """See how much memory is in use."""
        now = self._memory.resident()
        if now is not None and self._most is not None and self._before is not None:
            self._most = max(self._most, now)
            self.figures.growth = self._most - self._before


def read_again(message: Message) -> Message:
    """Return what a reader makes of the bytes that a message is written as."""
    kind = KIND_OF[type(message)]
    inbox = Inbox(sender_of(kind))
    inbox.feed(opening_of(kind) + b"".join(encode(message)))
    return list(inbox.messages())[-1]


def frames(seed: str, count: str) -> Iterator[Attempt]:
    """Yield that many mutated frames."""
    return (Attempt(*each) for each in mutations.mutated(int(seed), int(count)))


def as_hello(data: bytes) -> Attempt:
    """Return a pickle as the first frame of a client."""
    return Attempt(Side.CLIENT, b"", (mutations.framed_pickle(data),))


def opcodes(first: str, step: str) -> Iterator[Attempt]:
    """Yield pickles of every opcode in many contexts, every so many of them."""
    return map(as_hello, hostile_pickles.opcodes_in_contexts(int(first), int(step)))


def calls(folder: str) -> Iterator[Attempt]:
    """Yield pickles that would leave a trace in a folder."""
    return map(as_hello, hostile_pickles.calls(Path(folder)))


def bombs() -> Iterator[Attempt]:
    """Yield pickles that take memory or time of the standard reader."""
    return map(as_hello, hostile_pickles.bombs().values())


class Careless(Inbox):
    """What an inbox must not be: it does as it is told."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Run what comes as a program."""
        exec(compile(bytes(data), "careless", "exec"))


def misbehave() -> Figures:
    """Return what is noted of a reader that does everything that it must not do."""
    watch = Watch()
    warm_up(watch)
    program = (
        b"import os, wave\nopen(os.devnull).close()\nos.system('')\nimport no_such"
    )
    watch.feed(Attempt(Side.CLIENT, b"", (program,)), Careless(Side.CLIENT))
    return watch.figures


SOURCES: dict[str, Callable[..., Iterator[Attempt]]] = {
    "frames": frames,
    "opcodes": opcodes,
    "calls": calls,
    "bombs": bombs,
}


def warm_up(watch: Watch) -> None:
    """Do once what is only done the first time: tables, caches, imports of numpy."""
    np.zeros(1, np.float32).tobytes()
    for kind in SAMPLES:
        data = exact_bytes(kind)
        for pieces in ((data,), (data[:20], data[20:]), (data + b"\xff" * 20,)):
            watch.feed(Attempt(sender_of(kind), opening_of(kind), pieces))
    watch.rest()


def read_all(attempts: Iterable[Attempt]) -> Figures:
    """Feed all attempts; return what came of it."""
    watch = Watch()
    warm_up(watch)
    began = time.perf_counter()
    for attempt in attempts:
        watch.feed(attempt)
    watch.look()
    watch.figures.seconds = time.perf_counter() - began
    return watch.figures


def main() -> None:
    """Read what the words ask for; print the figures."""
    source, *words = sys.argv[1:]
    control = source == "control"
    figures = misbehave() if control else read_all(SOURCES[source](*words))
    print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
