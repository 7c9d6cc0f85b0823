"""A crowd of clients in one process, protocol-true, that hardly compute.

One of them reads with the real `Inbox`, and a real `Worker` follows what it reads: the
one replica that all of them share. The others skim: they read every frame's header and
every message's plain fields, and skip arrays that say nothing about themselves. Nobody
scores a trial: answers have plausible losses, and leave when the time for trials is
over.

Sharing a replica hides nothing of what the server does. An update is applied only once
all clients of the crowd have read theirs, sums are computed only once all rewards are
there and leave together, and a client's time for trials begins after that.
"""

import heapq
import itertools
import platform
import random
import selectors
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from utilities import plaindata
from utilities.communication import SILENT_SECONDS, WAIT_SECONDS
from utilities.errors import NetworkError
from utilities.evolution import Segment, Setting, Update
from utilities.frames import HEADER
from utilities.handshake import NO_BIND, ClientHandshake, fresh_nonce
from utilities.joincodes import read_code
from utilities.lines import CHUNK, connect
from utilities.protocol import (
    PROTOCOL_VERSION,
    SPECS,
    Begin,
    End,
    Goodbye,
    Hello,
    Message,
    Result,
    Shares,
    TokenBatch,
    Welcome,
)
from utilities.scheduling import losses_per_group
from utilities.sealing import Opener, Sealer, bundled
from utilities.selftest import ARITHMETIC_EXPECTED, NOISE_EXPECTED
from utilities.setup import VERSION
from utilities.wire import Inbox, Side, encode
from utilities.worker import Worker, agreed_setting

LARGE = 1 << 12  # bytes of an array that only the first client reads
DIALLED = 16  # connections that are opened before others have their turn
RETRY_SECONDS = 0.5, 1.0  # a client's first pause
SHARES_SECONDS = 0.005  # that rewards are waited for after the last ones have come
TRUE_STEPS = 4  # of a run, whose losses are real: whoever is first is audited alone
FOREVER = 1e9  # seconds
POOL = 1 << 16  # losses that answers are cut from
SEED, LOSS = 0x5EED5EED5EED5EED, 2.0  # stand for what differs between answers
ROW = struct.Struct("<3Q")  # a segment on the wire


@dataclass(frozen=True)
class Order:
    """What a crowd is to do."""

    host: str
    port: int
    code: str = field(repr=False)  # join code of the server, without TLS
    first: int  # number of its first client
    clients: int
    trials: int  # of one answer


@dataclass(frozen=True)
class Welcomed:
    """All clients of a crowd have got a state."""

    moment: float  # monotonic seconds
    retries: int  # connections that were lost and tried again


@dataclass(frozen=True)
class Passed:
    """The first client of a crowd has read the update of a step."""

    step: int
    moment: float  # monotonic seconds
    spent: float  # processor seconds on the replica so far: updates and sums


Tell: TypeAlias = Callable[[Welcomed | Passed], None]


# Reading.


@lru_cache(maxsize=1024)
def _plain(payload: bytes) -> dict[str, Any]:
    head = plaindata.loads(payload)
    assert isinstance(head, dict), head
    return head


@dataclass
class Skimmed:
    """A message without its large arrays."""

    head: dict[str, Any]
    arrays: dict[str, bytes] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Return the arrays that have not come yet."""
        return list(SPECS[self.head["kind"]].arrays)[len(self.arrays) :]


class Skimmer:
    """Cut the server's bytes into messages without holding what nobody needs."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._skip = 0  # bytes of an array that are still to come
        self._message: Skimmed | None = None

    def feed(self, data: memoryview) -> Iterator[Skimmed]:
        """Take bytes; yield the messages that are complete."""
        cut = min(self._skip, len(data))
        self._skip -= cut
        self._pending += data[cut:]
        while not self._skip:
            if self._message is not None and not self._message.missing:
                message, self._message = self._message, None
                yield message
            elif not self._frame():
                return

    def _frame(self) -> bool:
        """Take a frame, or the header of a large array; return whether it is there."""
        pending = self._pending
        if len(pending) < HEADER.size:
            return False
        tag_length, length = HEADER.unpack_from(pending)
        start = HEADER.size + tag_length
        end = start + length
        skipped = self._message is not None and length > LARGE
        if len(pending) < (start if skipped else end):
            return False
        payload = b"" if skipped else bytes(pending[start:end])
        self._skip = max(0, end - len(pending))
        del pending[:end]
        if self._message is None:
            self._message = Skimmed(_plain(payload))
        else:
            self._message.arrays[self._message.missing[0]] = payload
        return True


@dataclass(frozen=True)
class At:
    """A state or an update has brought a client to a step."""

    step: int
    update: bool = True


Heard: TypeAlias = At | Begin | Shares | Goodbye | None  # None: not to be acted upon


def heard(message: Skimmed) -> Heard:
    """Return what a message means to a client without a replica of its own."""
    head, arrays = message.head, message.arrays
    match head["kind"]:
        case "welcome":
            return At(head["step"], update=False)
        case "update":
            return At(head["step"] + 1)
        case "begin":
            seconds, batch = head["timePerStep"], head["tokenBatch"]
            segments = _segments(arrays["segments"])
            return Begin(head["step"], seconds, batch, head["stateWanted"], segments)
        case "shares":
            rewards = np.frombuffer(arrays["rewards"], np.int8)
            segments = _segments(arrays["segments"])
            return Shares(head["step"], head["tokenBatch"], segments, rewards)
        case "goodbye":
            return Goodbye(head["end"], head["reason"])
    return None


def _segments(rows: bytes) -> tuple[Segment, ...]:
    return tuple(Segment(*row) for row in ROW.iter_unpack(rows))


# The replica.


def in_bytes(*messages: Message) -> bytes:
    """Return messages as they travel."""
    return b"".join(part for message in messages for part in encode(message))


class Replica:
    """What the clients of a crowd share: a real worker that seldom scores trials."""

    def __init__(self, trials: int) -> None:
        """Answer with that many trials, rounded down to whole groups, at least one."""
        self._worker = Worker(time.perf_counter)
        self._setting: Setting | None = None
        self._trials = trials
        # Answers without seeds and losses, by the groups of their segments.
        self._forms: dict[tuple[int, ...], tuple[bytes, ...]] = {}
        self._form_step = -1
        numbers = np.random.default_rng(1).standard_normal(POOL + 2 * trials + 2048)
        losses = LOSS + numbers / 50
        self._losses = losses.astype("<f4").tobytes()
        self.spent = 0.0  # processor seconds of updates and sums

    @property
    def step(self) -> int:
        """Return the step that it is at, -1 before there is a state."""
        return -1 if self._worker.step is None else self._worker.step

    def follow(self, message: Message) -> None:
        """Take a message as every replica does."""
        began = time.process_time()
        self._worker.handle(message)
        self._worker.take()  # what follows is read by other clients
        self.spent += time.process_time() - began
        if isinstance(message, Welcome):
            self._setting = agreed_setting(message.config, message.text_sha256)

    def answer(self, begin: Begin) -> bytes:
        """Return what a client answers to a request of the present step."""
        done = self._done(begin.segments)
        if done and begin.step < TRUE_STEPS:
            whole = replace(begin, segments=tuple(done), time_per_step=FOREVER)
            self._worker.handle(whole)
            *state, result = self._worker.work()
            assert isinstance(result, Result)
            told = replace(result, trial_seconds=begin.time_per_step)
            return in_bytes(*state, told)
        sizes = tuple(segment.groups for segment in done)
        known = self._form_step == begin.step and sizes in self._forms
        if known and done and not begin.state_wanted:
            return self._filled(done, sizes)
        self._worker.handle(replace(begin, segments=(), time_per_step=0.0))
        *state, result = self._worker.work()  # no segments: it gives its digest alone
        assert isinstance(result, Result)
        if not begin.segments:
            return in_bytes(*state, result)
        self._cut(result, begin.time_per_step, sizes)
        return in_bytes(*state) + self._filled(done, sizes)

    def _done(self, segments: tuple[Segment, ...]) -> list[Segment]:
        """Return the first groups of what was given out, as many as are answered."""
        if self._setting is None:
            return []
        each = self._setting.config.trials_per_group
        left, done = max(1, self._trials // each), []
        for segment in segments:
            groups = min(left, segment.groups)
            left -= groups
            if groups:
                done.append(Segment(segment.seed, segment.first, groups))
        return done

    def _cut(self, result: Result, seconds: float, sizes: tuple[int, ...]) -> None:
        """Keep the bytes of a result around its segments and its losses."""
        each, each_clean = self._each()
        losses = np.full(sum(sizes) * each, LOSS, np.float32)
        clean = np.full(sum(sizes) * each_clean, LOSS, np.float32)
        segments = tuple(Segment(SEED, 0, groups) for groups in sizes)
        told = replace(result, trial_seconds=seconds, segments=segments)
        whole = in_bytes(replace(told, losses=losses, clean=clean))
        rows = b"".join(ROW.pack(s.seed, s.first, s.groups) for s in segments)
        head, _, rest = whole.partition(rows)
        middle, _, tail = rest.partition(losses.astype("<f4").tobytes())
        if result.step != self._form_step:
            self._forms.clear()
        self._forms[sizes], self._form_step = (head, middle, tail), result.step

    def _each(self) -> tuple[int, int]:
        """Return how many losses a group has, and how many of clean weights."""
        assert self._setting is not None, "who is asked has been welcomed"
        return losses_per_group(self._setting)

    def _filled(self, done: list[Segment], sizes: tuple[int, ...]) -> bytes:
        head, middle, tail = self._forms[sizes]
        rows = b"".join(ROW.pack(s.seed, s.first, s.groups) for s in done)
        # Two clients that are given the same trials have to say the same of them.
        starts = (4 * (segment.seed % POOL) for segment in done)
        each, _ = self._each()
        sizes = tuple(4 * groups * each for groups in sizes)
        losses = (
            self._losses[start : start + size]
            for start, size in zip(starts, sizes, strict=True)
        )
        return b"".join((head, rows, middle, *losses, tail))

    def sums(self, shares: list[Shares]) -> list[Message]:
        """Return what clients answer to the rewards of their trials."""
        began, sums = time.process_time(), list[Message]()
        for share in shares:
            self._worker.handle(share)
            sums += self._worker.work()
        self.spent += time.process_time() - began
        return sums


# The clients.


@dataclass(eq=False)
class Member:
    """One client of a crowd."""

    number: int
    socket: Any  # as `communication.connect` gives it
    reader: Skimmer | Inbox
    handshake: ClientHandshake
    opener: Opener | None = None  # once the handshake is done
    sealer: Sealer | None = None
    step: int | None = None  # that its replica would be at
    answered: int | None = None  # the step of its newest answer
    behind: bool = False  # a step closed without it, see `utilities.client.Pace`
    open: bool = True
    parted: bool = False  # the server has said that the run is over


class Crowd:
    """All clients of one process."""

    def __init__(self, order: Order, tell: Tell) -> None:
        """Prepare to dial.

        Args:
            order: what is to be done.
            tell: is told how it goes.
        """
        self._order = order
        self._code = read_code(order.code)
        self._tell = tell
        self._replica = Replica(order.trials)
        self._selector = selectors.DefaultSelector()
        self._buffer = memoryview(bytearray(CHUNK))
        self._random = random.Random(order.first)
        numbers = range(order.first, order.first + order.clients)
        self._dial_at = [(0.0, number) for number in numbers]  # a heap
        self._steps: Counter[int] = Counter()  # members at each step
        self._script: deque[Message] = deque()  # for the replica, to be followed
        self._begins: dict[int, list[tuple[Member, Begin]]] = {}  # by step, to begin
        self._due: list[tuple[float, int, Member, Begin]] = []  # a heap: when to answer
        self._turns = itertools.count()
        self._answered = 0  # with losses, in the present step
        self._shares: list[tuple[Member, Shares]] = []
        self._shares_end = 0.0  # when they are summed up at the latest
        self._retries = 0
        self._welcomed = False

    def run(self) -> None:
        """Take part until the server has said goodbye to all.

        Raises:
            NetworkError: a client that had been welcomed was lost.
        """
        while self._dial_at or self._selector.get_map():
            self._dial()
            for key, _ in self._selector.select(self._patience()):
                self._read(key.data)
            self._follow()
            self._sum_up()
            self._answer()

    def _patience(self) -> float:
        """Return the seconds until something is to be done."""
        moments = [heap[0][0] for heap in (self._dial_at, self._due) if heap]
        if self._shares:
            moments.append(self._shares_end)
        longest = time.monotonic() + WAIT_SECONDS
        return max(0.0, min(moments, default=longest) - time.monotonic())

    # Connections.

    def _dial(self) -> None:
        for _ in range(DIALLED):
            if not self._dial_at or self._dial_at[0][0] > time.monotonic():
                return
            _, number = heapq.heappop(self._dial_at)
            try:
                line = connect(self._order.host, self._order.port)
            except NetworkError:
                self._retry(number)
                continue
            line.settimeout(SILENT_SECONDS)
            first = number == self._order.first
            reader = Inbox(Side.SERVER) if first else Skimmer()
            handshake = ClientHandshake(self._code, NO_BIND, fresh_nonce())
            member = Member(number, line, reader, handshake)
            self._selector.register(line, selectors.EVENT_READ, member)

    def _hello(self, number: int) -> Hello:
        return Hello(
            protocol=PROTOCOL_VERSION,
            program=VERSION,
            python=platform.python_version(),
            numpy=np.__version__[:32],
            name=f"simulated-{number}",
            noise_test=NOISE_EXPECTED,
            arithmetic_test=ARITHMETIC_EXPECTED,
        )

    def _retry(self, number: int) -> None:
        self._retries += 1
        moment = time.monotonic() + self._random.uniform(*RETRY_SECONDS)
        heapq.heappush(self._dial_at, (moment, number))

    def _send(self, member: Member, data: bytes) -> None:
        assert member.sealer is not None, "it has proved itself"
        self._send_plainly(member, b"".join(member.sealer.seal(bundled([data]))))

    def _send_plainly(self, member: Member, data: bytes) -> None:
        try:
            member.socket.sendall(data)
        except OSError as error:
            self._lose(member, str(error))

    def _lose(self, member: Member, reason: str) -> None:
        if not member.open:
            return
        member.open = False
        self._selector.unregister(member.socket)
        member.socket.close()
        if member.parted:
            return
        if member.step is not None:
            raise NetworkError(f"simulated client {member.number} is lost: {reason}")
        self._retry(member.number)

    # Reading.

    def _read(self, member: Member) -> None:
        try:
            size = member.socket.recv_into(self._buffer)
        except OSError as error:
            self._lose(member, str(error))
            return
        if not size:
            self._lose(member, "it was closed")
            return
        data = self._buffer[:size]
        if member.opener is None:
            data = self._shake(member, data)
        if member.opener is not None:
            for opened in member.opener.open(data):
                self._take(member, opened)

    def _shake(self, member: Member, data: memoryview) -> memoryview:
        """Go on with the handshake; return what comes after it."""
        data = member.handshake.take(data)
        if reply := member.handshake.reply():
            self._send_plainly(member, reply)
        if keys := member.handshake.keys:
            member.opener = Opener(keys.to_client)
            member.sealer = Sealer(keys.to_server)
            self._send(member, in_bytes(self._hello(member.number)))
        return data

    def _take(self, member: Member, data: memoryview) -> None:
        if isinstance(member.reader, Skimmer):
            for skimmed in member.reader.feed(data):
                self._hear(member, heard(skimmed))
            return
        member.reader.feed(data)
        for message in member.reader.messages():
            self._hear(member, self._as_first(message))

    def _as_first(self, message: Message) -> Heard:
        """Take a message of the client whose replica is everybody's."""
        match message:
            case Welcome():
                self._script.append(message)
                return At(message.step, update=False)
            case TokenBatch():
                self._script.append(message)
            case Update():
                self._script.append(message)
                told = Passed(message.step, time.monotonic(), self._replica.spent)
                self._tell(told)
                return At(message.step + 1)
            case Begin() | Shares() | Goodbye():
                return message
        return None

    def _hear(self, member: Member, what: Heard) -> None:
        match what:
            case At():
                missed = what.update and what.step - 1 != member.answered
                member.behind = member.behind or missed
                self._move(member, what.step)
            case Begin():
                begin = replace(what, time_per_step=0.0) if member.behind else what
                self._begins.setdefault(what.step, []).append((member, begin))
            case Shares():
                self._shares.append((member, what))
                self._shares_end = time.monotonic() + SHARES_SECONDS
            case Goodbye():
                member.parted = what.end == End.FINISHED.value
                self._lose(member, what.reason)

    def _move(self, member: Member, step: int) -> None:
        if member.step is not None:
            self._steps[member.step] -= 1
            if not self._steps[member.step]:
                del self._steps[member.step]
        self._steps[step] += 1
        member.step = step
        if not self._welcomed and self._steps.total() == self._order.clients:
            self._welcomed = True
            self._tell(Welcomed(time.monotonic(), self._retries))

    # What the replica does.

    def _follow(self) -> None:
        """Let the replica follow as far as all clients have come; begin what is due."""
        while self._script and self._has_come(self._script[0]):
            self._replica.follow(self._script.popleft())
            self._answered = 0
        step, now = self._replica.step, time.monotonic()
        for member, begin in self._begins.pop(step, []):
            seconds = begin.time_per_step if begin.segments else 0.0
            entry = (now + seconds, next(self._turns), member, begin)
            heapq.heappush(self._due, entry)
        self._begins = {s: every for s, every in self._begins.items() if s > step}

    def _has_come(self, message: Message) -> bool:
        """Return whether no client has yet to read a message that the first has."""
        if not isinstance(message, Update):
            return True
        return all(step > message.step for step in self._steps)

    def _answer(self) -> None:
        """Send the answers of those whose time is over."""
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, member, begin = heapq.heappop(self._due)
            if begin.step == self._replica.step:  # else the step has closed without it
                self._answered += bool(begin.segments)
                member.answered, member.behind = begin.step, False
                self._send(member, self._replica.answer(begin))

    def _sum_up(self) -> None:
        """Send the sums once all rewards have come, or no more of them do."""
        late = time.monotonic() >= self._shares_end
        if not self._shares or not (late or len(self._shares) >= self._answered):
            return
        shares, self._shares = self._shares, []
        sums = self._replica.sums([share for _, share in shares])
        for (member, _), message in zip(shares, sums, strict=True):
            self._send(member, in_bytes(message))
