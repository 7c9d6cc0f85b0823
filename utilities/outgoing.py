"""What waits to be sent to one peer. No I/O.

The parts of a message that goes to a thousand peers exist once: a queue holds views of
them, and how much its peer has taken.
"""

import itertools
from collections import deque
from collections.abc import Iterable

from utilities.frames import Buffer

PARTS = 64  # that are sent together; no system takes fewer in one call


class Outgoing:
    """Parts in order, without those that the peer has taken."""

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: deque[memoryview] = deque()
        self.size = 0  # bytes

    def __bool__(self) -> bool:
        return bool(self._parts)

    def push(self, parts: Iterable[Buffer]) -> None:
        """Queue parts; they must not change any more. Empty ones are left out."""
        views = [memoryview(part) for part in parts if len(part)]
        self._parts += views
        self.size += sum(map(len, views))

    def first(self) -> list[memoryview]:
        """Return what is to be sent next, together."""
        return list(itertools.islice(self._parts, PARTS))

    def taken(self, count: int) -> None:
        """Drop that many bytes from the beginning: they are on their way."""
        assert 0 <= count <= self.size, (count, self.size)
        self.size -= count
        if not self.size:
            self._parts.clear()  # all of it, as most peers do
            return
        while count:
            part = self._parts[0]
            if count < len(part):
                self._parts[0] = part[count:]
                return
            count -= len(part)
            self._parts.popleft()
