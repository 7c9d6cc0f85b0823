"""One client on several cores: worker processes that score trials and share the update.

The client's own process keeps connection, replica and screen. What is to be computed it
asks of all its workers at once, by one short message each way:

    client   weights, text, rewards              -> shared memory
             a request                           -> every worker's pipe
    worker   takes groups from a shared counter until time is up or none is left
             losses and sums                     -> shared memory
             an empty message                    -> its pipe

Workers are fresh interpreters, never forks: that works everywhere, and beside threads.
They obey no signals and have nothing to save: they end when the client does, however
that ends, and are killed when they are no longer needed. One that dies by itself takes
the client with it, since the usual reason, too little memory, would soon come again.

Who computes what is decided in `utilities.scheduling`.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utilities.config import from_json
from utilities.engine import Halves, OnBlock, OneCore, Scored
from utilities.errors import TrainingError
from utilities.evolution import Scores, Segment, Setting, halves
from utilities.model import Floats, Tokens
from utilities.rewards import Rewards
from utilities.scheduling import (
    groups_of,
    part_groups,
    score_share,
    scored_blocks,
    sheet_size,
    sum_share,
)
from utilities.shelf import Reference, Shelf, Window
from utilities.whitening import Whiteners

LOOK_SECONDS = 0.1  # between two looks at workers that compute
TAKEN, SCORED = 0, 1  # the counters: groups, trials
READY = b"ready"  # also that a request has been done
ALONE_TRIALS = 2048  # that one process adds up as soon as two, at any size of model
KEPT_BYTES = 31 << 20  # glibc hands blocks of 32 MB and more back in any case


@dataclass(frozen=True)
class Request:
    """What all workers are asked to do together."""

    keys: Mapping[str, Any]  # of the configuration
    text_sha256: str
    arrays: Mapping[str, Reference]
    moment: float | None = None  # of the clock, until which blocks are scored
    middle: int = 0  # groups of the first half of a sum
    groups: int = 0  # of one part of a sum; 0: score

    def encode(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self)).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> "Request":
        """Return what was encoded."""
        return cls(**json.loads(data))


# A worker.


class Counter:
    """The numbers of groups, which all workers take from."""

    def __init__(self, lock: Lock, counters: NDArray[np.int64]) -> None:
        """Count in shared memory."""
        self._lock = lock
        self._counters = counters

    def take(self, groups: int, *, only_first: bool = False) -> int | None:
        """Return the first of so many; None where only the very first would do."""
        with self._lock:
            number = int(self._counters[TAKEN])
            if only_first and number:
                return None
            self._counters[TAKEN] = number + groups
        return number

    def add_scored(self, trials: int) -> None:
        """Count trials as scored."""
        with self._lock:
            self._counters[SCORED] += trials


class Member:
    """What a worker process does."""

    def __init__(self, lock: Lock) -> None:
        """Share a lock with the others."""
        self._lock = lock
        self._window = Window()
        self._run: tuple[Mapping[str, Any], str] = ({}, "")
        self._setting: Setting | None = None

    def do(self, request: Request) -> None:
        """Do this worker's share of a request."""
        setting = self._agreed(request)
        arrays = self._window.arrays(request.arrays)
        counter = Counter(self._lock, arrays["counters"])
        segments = [Segment(*map(int, row)) for row in arrays["segments"]]
        if request.groups:
            sums = sum_share(
                setting,
                arrays["weights"],
                arrays["tokens"],
                tuple(arrays["whiteners"]),
                segments,
                arrays["rewards"],
                request.middle,
                request.groups,
                counter,
            )
            with self._lock:
                arrays["sums"] += sums
            return
        score_share(
            setting,
            arrays["weights"],
            arrays["tokens"],
            tuple(arrays["whiteners"]),
            segments,
            request.moment,
            time.monotonic,
            counter,
            Scores(arrays["losses"], arrays["clean"]),
        )

    def _agreed(self, request: Request) -> Setting:
        """Return the request's setting, the same one for as long as it stays."""
        run = (request.keys, request.text_sha256)
        if self._setting is None or run != self._run:
            self._run = run
            self._setting = Setting(from_json(request.keys), request.text_sha256)
        return self._setting


def serve(connection: Connection, lock: Lock) -> None:
    """Do what the client asks, for as long as it lives: a worker process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it is the client who decides
    threading.Thread(target=_end_with_client, name="client", daemon=True).start()
    _keep_memory()
    member = Member(lock)
    with suppress(EOFError, OSError):  # the client has gone
        while True:
            connection.send_bytes(READY)
            member.do(Request.decode(connection.recv_bytes()))
    os._exit(0)


def _keep_memory() -> None:
    """Let freed memory stay with this process.

    glibc hands blocks back to the system that are larger than any freed before, and
    every page of the next one has to be fetched and cleared again: a third of a
    block's time with 32 units. One large block, never touched, is a lesson to it.
    """
    large = np.empty(KEPT_BYTES, np.uint8)
    del large


def _end_with_client() -> None:
    client = multiprocessing.parent_process()
    assert client is not None
    client.join()
    os._exit(0)


# The client.


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep signals waiting; processes that are started meanwhile never get them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)


class Team:
    """Compute in several processes, while the context is open."""

    def __init__(self, size: int) -> None:
        """Prepare that many workers; none is started yet."""
        self.size = size
        self._shelf = Shelf()
        self._processes: list[SpawnProcess] = []
        self._connections: list[Connection] = []
        self._tokens: Tokens | None = None  # the batch that is in shared memory
        self._alone = OneCore(time.monotonic)

    def __enter__(self) -> "Team":
        """Start the workers and wait until they are ready.

        Raises:
            TrainingError: they cannot be started, or one of them has died.
        """
        with ExitStack() as undo:
            undo.callback(self.close)
            # First: shared memory starts the process that will clean up after all.
            self._shelf.make("counters", np.int64, 2)
            try:
                self._start()
            except OSError as error:
                raise TrainingError(
                    f"--workers: {self.size} processes cannot be started "
                    f"({error.strerror}); use fewer"
                ) from error
            undo.pop_all()
        return self

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        lock = context.Lock()  # is known here until all workers have taken it over
        with _signals_kept():
            for _ in range(self.size):
                ours, theirs = context.Pipe()
                self._connections.append(ours)
                process = context.Process(target=serve, args=(theirs, lock))
                process.start()
                self._processes.append(process)
                theirs.close()
        self._wait(lambda trials: None)

    def __exit__(self, *_: object) -> None:
        """End the workers, whatever they are doing."""
        self.close()

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for connection in self._connections:
            connection.close()
        self._processes, self._connections = [], []
        self._shelf.close()

    # What an engine does.

    def score(
        self,
        setting: Setting,
        weights: Floats,
        tokens: Tokens,
        shaped: Whiteners,
        segments: Sequence[Segment],
        seconds: float | None,
        on_block: OnBlock,
    ) -> Scored:
        """Score blocks until the next would not fit, at least one.

        Raises:
            TrainingError: a worker has died.
        """
        moment = None if seconds is None else time.monotonic() + seconds
        self._share(setting, weights, tokens, shaped, segments)
        losses, clean = sheet_size(setting, segments)
        self._shelf.make("losses", np.float32, losses, sparse=True)
        self._shelf.make("clean", np.float32, clean, sparse=True)
        self._ask(self._request(setting, moment=moment), on_block)
        sheet = Scores(self._shelf.look("losses"), self._shelf.look("clean"))
        taken, trials = map(int, self._shelf.look("counters"))
        on_block(trials)
        return scored_blocks(setting, segments, taken, sheet)

    def halves(
        self,
        setting: Setting,
        weights: Floats,
        tokens: Tokens,
        shaped: Whiteners,
        segments: Sequence[Segment],
        rewards: Rewards,
    ) -> Halves:
        """Return the sums of both halves.

        Small ones are computed here, before the workers would have been asked.

        Raises:
            TrainingError: a worker has died.
        """
        if len(rewards) < ALONE_TRIALS:
            work = setting, weights, tokens, shaped, segments, rewards
            return self._alone.halves(*work)
        (one, first), (other, second) = halves(setting, segments, rewards)
        middle = groups_of(one)
        groups = middle + groups_of(other)
        self._share(setting, weights, tokens, shaped, [*one, *other])
        self._shelf.put("rewards", np.concatenate([first, second]))
        self._shelf.make("sums", np.int64, 2, setting.layout.size)[...] = 0
        part = part_groups(setting, groups, self.size)
        self._ask(
            self._request(setting, middle=middle, groups=part), lambda trials: None
        )
        sums = self._shelf.look("sums").copy()
        return sums[0], sums[1]

    def _share(
        self,
        setting: Setting,
        weights: Floats,
        tokens: Tokens,
        shaped: Whiteners,
        segments: Sequence[Segment],
    ) -> None:
        self._shelf.put("weights", weights)
        size = setting.layout.hidden_size
        whiteners = np.array(shaped, np.float32).reshape(-1, size, size)
        self._shelf.put("whiteners", whiteners)
        if tokens is not self._tokens:  # megabytes, the same for many steps
            self._shelf.put("tokens", tokens)
            self._tokens = tokens
        rows = [(s.seed, s.first, s.groups) for s in segments]
        self._shelf.put("segments", np.array(rows, np.uint64).reshape(-1, 3))

    def _request(self, setting: Setting, **changes: Any) -> Request:
        keys = setting.config.to_json()
        return Request(keys, setting.text_sha256, self._shelf.references, **changes)

    # Asking.

    def _ask(self, request: Request, on_block: OnBlock) -> None:
        """Have a request done by all workers."""
        self._shelf.look("counters")[...] = 0
        data = request.encode()
        for number, connection in enumerate(self._connections):
            try:
                connection.send_bytes(data)
            except OSError:
                raise self._died(number) from None
        self._wait(on_block)

    def _wait(self, on_block: OnBlock) -> None:
        """Wait for all workers; tell now and then how many trials are scored."""
        for number in range(self.size):
            while not self._has_done(number):
                self._check()
                on_block(int(self._shelf.look("counters")[SCORED]))

    def _has_done(self, number: int) -> bool:
        """Return whether a worker is done, after a while in which it may become so."""
        connection = self._connections[number]
        try:
            return connection.poll(LOOK_SECONDS) and connection.recv_bytes() == READY
        except (EOFError, OSError):
            raise self._died(number) from None

    def _check(self) -> None:
        """Find out whether all workers live: others may wait for one that does not."""
        for number, process in enumerate(self._processes):
            if process.exitcode is not None:
                raise self._died(number)

    def _died(self, number: int) -> TrainingError:
        process = self._processes[number]
        process.join(LOOK_SECONDS)
        return TrainingError(died(number + 1, self.size, process.exitcode))


def died(number: int, size: int, code: int | None) -> str:
    """Return what a user is told when a worker has died."""
    how = f"with status {code}" if code is None or code >= 0 else f"by signal {-code}"
    return (
        f"worker {number} of {size} ended {how}, perhaps for lack of memory; start the "
        "client again, with fewer --workers if that comes back"
    )
