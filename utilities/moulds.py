"""Pickles that differ from one read before in numbers and digests alone. No I/O.

A thousand clients send the same kinds of messages, over and over: the same opcodes and
keys, other operands. Once the machine of `utilities.plaindata` has read such a dict of
scalars, its bytes without the operands are a mould. Whatever has the same length and
fills it has the same program: run by the machine, it would make the same dict with
other numbers, so these are taken from their places, at a sixth of the time. All else
is read by the machine.
"""

import struct
from itertools import pairwise

from utilities.plaindata import Operand, Plain, loads_with_operands

LONGEST = 512  # bytes of a pickle that is remembered, one of each length
SCALARS = (int, float, bytes)  # exactly these have operands


class Mould:
    """The bytes around the operands of one pickle."""

    __slots__ = ("_around", "_big", "_fixed", "_floats", "_head", "_little", "_others")

    def __init__(
        self, data: bytes, head: dict[str, Plain], operands: list[Operand]
    ) -> None:
        """Take the mould of a pickle.

        Args:
            data: of it.
            head: the scalars that it stands for.
            operands: of each number and each byte string among these, in order.
        """
        keys = [key for key, value in head.items() if type(value) in SCALARS]
        assert len(keys) == len(operands), "each value has its own operand"
        around, little, big = "<", "<", ">"  # of floats bytes have the other order
        ends = [(0, 0), *((start, start + size) for start, size, _ in operands)]
        gaps = [start - end for (_, end), (start, _) in pairwise(ends)]
        for gap, (_, size, code) in zip(gaps, operands, strict=True):
            around += f"{gap}s{size}x"
            little += f"{gap}x" + (f"{size}x" if code == "d" else code)
            big += f"{gap}x" + (code if code == "d" else f"{size}x")
        left = len(data) - ends[-1][1]
        self._around = struct.Struct(f"{around}{left}s")
        self._little = struct.Struct(f"{little}{left}x")
        self._big = struct.Struct(f"{big}{left}x")
        self._fixed = self._around.unpack(data)
        self._head = dict(head)
        self._floats = [key for key in keys if type(head[key]) is float]
        self._others = [key for key in keys if type(head[key]) is not float]

    def read(self, data: bytearray) -> dict[str, Plain] | None:
        """Return what a pickle of the same length stands for; None: it does not fit."""
        if self._around.unpack(data) != self._fixed:
            return None
        head = dict(self._head)
        head.update(zip(self._others, self._little.unpack(data), strict=True))
        head.update(zip(self._floats, self._big.unpack(data), strict=True))
        return head


_known: dict[int, Mould] = {}  # the newest of each length


def loads(data: bytearray) -> Plain:
    """Return what `plaindata.loads` would.

    Raises:
        ProtocolError: as there.
    """
    mould = _known.get(len(data))
    head = None if mould is None else mould.read(data)
    if head is not None:
        return head
    value, operands = loads_with_operands(data)
    if len(data) <= LONGEST and _fits(value, operands):
        assert isinstance(value, dict)
        _known[len(data)] = Mould(bytes(data), value, operands)
    return value


def _fits(value: Plain, operands: list[Operand]) -> bool:
    """Return whether a value is a dict whose numbers and bytes each have an operand.

    Not all have one: a value may come twice, by reference to the first.
    """
    if not isinstance(value, dict):
        return False
    values = value.values()
    nested = any(isinstance(each, list | tuple | dict) for each in values)
    scalars = sum(type(each) in SCALARS for each in values)
    return not nested and scalars == len(operands)
