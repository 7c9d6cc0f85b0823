"""Steps that have been taken: as bytes of the journal, and the newest ones in memory.

An `Entry` is all that replays one step and all that the logs tell of it, so that both
can be made good after a crash. `Recent` keeps the updates that whoever missed a few
steps needs, as long as they are fewer bytes than the state.
"""

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from utilities.errors import ProtocolError
from utilities.evolution import Setting, Update, trials_of
from utilities.frames import FrameReader, text_frame
from utilities.protocol import MAX_COUNT, SECONDS, Check, real, whole
from utilities.wire import Inbox, Phase, Side, encode

SEGMENT_BYTES = 150  # that a segment takes in memory, its object and its numbers


@dataclass(frozen=True)
class Entry:
    """A step that has closed."""

    update: Update
    digest: bytes  # of the state before it
    time: float  # seconds since 1970
    seconds: float  # that the run had trained
    loss: float | None  # nats per character
    clients: int
    late: int
    dropped: int
    aggregation: str
    contributions: tuple[tuple[str, int, int], ...]  # name, trials, sum |reward|

    @property
    def step(self) -> int:
        """Return its number."""
        return self.update.step


_FIGURES: dict[str, Check] = {
    "digest": lambda value: isinstance(value, str) and len(value) == 64,
    "time": real(0.0, 1e12),
    "seconds": SECONDS,
    "loss": lambda value: value is None or type(value) is float,
    "clients": whole(0, MAX_COUNT),
    "late": whole(0, MAX_COUNT),
    "dropped": whole(0, MAX_COUNT),
    "aggregation": lambda value: value in ("", "seeds", "sums"),
    "contributions": lambda value: isinstance(value, list),
}


def pack(entry: Entry) -> bytes:
    """Return an entry as the payload of a record: figures as JSON, then its update."""
    figures = {name: getattr(entry, name) for name in _FIGURES}
    figures["digest"] = entry.digest.hex()
    text = json.dumps(figures, separators=(",", ":"))
    return b"".join([text_frame(text), *encode(entry.update)])


def unpack(payload: bytes) -> Entry:
    """Return the entry of a payload.

    Raises:
        ProtocolError: it is not one.
    """
    reader = FrameReader()
    reader.feed(payload)
    announced = reader.announced()
    text = reader.payload() if announced and announced.tag == "str" else None
    if text is None:
        raise ProtocolError("entry: expected its figures as text")
    figures = _figures(text.decode("utf-8", "replace"))
    inbox = Inbox(Side.SERVER, phase=Phase.JOINED)
    inbox.feed(memoryview(payload)[len(text_frame("")) + len(text) :])
    messages = list(inbox.messages())
    if len(messages) != 1 or not isinstance(messages[0], Update):
        raise ProtocolError(f"entry: expected one update, got {messages!r:.200}")
    return Entry(messages[0], **figures)


def _figures(text: str) -> dict[str, Any]:
    """Return all fields of an entry but its update."""
    try:
        found = json.loads(text)
        if not isinstance(found, dict) or found.keys() != _FIGURES.keys():
            raise ValueError(f"expected the keys {', '.join(_FIGURES)}")
        wrong = [name for name, check in _FIGURES.items() if not check(found[name])]
        if wrong:
            raise ValueError(f"{wrong[0]} is not acceptable")
        rows = tuple(_contribution(row) for row in found["contributions"])
        digest = bytes.fromhex(found["digest"])
    except ValueError as error:
        raise ProtocolError(f"entry: {error}, got {text:.200}") from error
    return {**found, "digest": digest, "contributions": rows}


def _contribution(row: object) -> tuple[str, int, int]:
    match row:
        case [str(name), int(trials), int(reward)]:
            return name, trials, reward
        case _:
            raise ValueError("a contribution is not acceptable")


def check_update(setting: Setting, update: Update) -> None:
    """Raise ProtocolError unless an update has what it announces."""
    trials = trials_of(setting, update.segments)
    if not update.summed and not trials == update.trials == len(update.rewards):
        raise ProtocolError(
            f"update: {trials} trials in segments, {update.trials} announced, "
            f"{len(update.rewards)} rewards"
        )
    if not update.summed:
        return
    size, rewards = setting.layout.size, len(update.rewards)
    if trials or rewards or not update.trials or len(update.total) != size:
        raise ProtocolError(
            f"update: expected a total of {size} weights alone, got {trials} trials in "
            f"segments, {update.trials} announced, {rewards} rewards, "
            f"a total of {len(update.total)}"
        )


def held(update: Update) -> int:
    """Return the bytes that an update holds."""
    segments = SEGMENT_BYTES * len(update.segments)
    return update.rewards.nbytes + update.total.nbytes + segments


class Recent:
    """The updates of the newest steps, each with the digest before it."""

    def __init__(self, most: int) -> None:
        """Begin empty.

        Args:
            most: bytes of updates that are kept though nobody needs them yet.
        """
        self._most = most
        self._steps: deque[tuple[bytes, Update]] = deque()
        self._bytes = 0

    def append(self, update: Update, digest: bytes) -> None:
        """Take the update of the step after the last one."""
        self._steps.append((digest, update))
        self._bytes += held(update)

    def forget(self, step: int) -> None:
        """Forget updates before a step as far as they are too many to be kept."""
        while self._steps and self._steps[0][1].step < step:
            if self._bytes <= self._most:
                return
            self._bytes -= held(self._steps.popleft()[1])

    def since(self, step: int, digest: bytes) -> tuple[Update, ...] | None:
        """Return the updates from a step on, at which a replica has a digest.

        None where they are not all here, or the digest was another one.
        """
        if not self._steps or step < self._steps[0][1].step:
            return None
        index = step - self._steps[0][1].step
        if index >= len(self._steps) or self._steps[index][0] != digest:
            return None
        return tuple(update for _, update in list(self._steps)[index:])
