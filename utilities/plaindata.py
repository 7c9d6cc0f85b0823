"""Plain data as pickles, written by the standard pickler and read by our own decoder.

Owns: what plain data is, the bytes that stand for it, and the limits on both. Does
not own: which fields a message has (protocol.py checks those), frames or arrays.

Plain data is None, bool, int of at most 127 bits and a sign, float, str without
surrogates, bytes, list, tuple, and dict with str keys: these exact types, no subclass.

The idea: a pickle is a program for a small stack machine, and the standard machine
runs programs that import, call, hang or exhaust the memory, even with every global
refused. What `pickle.dumps(…, protocol=4)` writes for plain data needs 30 of its 68
opcodes. `loads` is a machine with those 30 and nothing else, so there is nothing in it
that could be misused: no names, no calls, no way to use a container twice (hence no
cycles and no short program for a huge value), and limits on size, count and depth.

    80 04   95 <u64: bytes that follow>   opcodes …   2e
    PROTO   FRAME (absent where fewer     one value   STOP, the last byte
            than 4 bytes follow PROTO)
"""

import pickle
import struct
from collections.abc import Callable
from typing import NoReturn, TypeAlias

from utilities.errors import ProtocolError

Plain: TypeAlias = (
    "bool | int | float | str | bytes"
    " | list[Plain] | tuple[Plain, ...] | dict[str, Plain] | None"
)
# Of an opcode's value: where it begins, its bytes, its format as `struct` has it.
Operand: TypeAlias = tuple[int, int, str]
_Container: TypeAlias = list[object] | tuple[object, ...] | dict[object, object]

# Below the 64 KiB at which the pickler starts a second frame, so that there is never
# more than one. Our greatest messages have a few kilobytes; bulk travels as arrays.
MAX_BYTES = 60_000
# Values, keys included. MAX_BYTES full of (seed, first, count) has 14,000; more would
# only buy a hostile peer time, at about half a microsecond each.
MAX_NODES = 20_000
# MARKs: the pickler writes one for two values at least, and one more for every thousand
# entries of a dict. Beyond that they would only take time, as "no entries" does.
MAX_MARKS = MAX_NODES // 2 + MAX_NODES // 1000
# Containers around the innermost value. Ours nest 4 deep; at 32 nothing that recurses
# over the result (repr, comparison, a later dumps) comes near Python's own limit.
MAX_DEPTH = 32
# Characters and bytes in all strings together, a repeated one counted each time. Two
# bytes repeat a string, so 60 kB could otherwise stand for 450 MB in a log line.
MAX_TEXT = 1_000_000
# Bytes of a LONG1. Seeds need 9; a limit keeps arithmetic on them cheap.
MAX_INT_BYTES = 16
# Both signs have the same range: the most negative number of 16 bytes is left out.
MAX_INT = 2 ** (8 * MAX_INT_BYTES - 1) - 1

_PROTOCOL = 4
_HEADER = pickle.PROTO + bytes([_PROTOCOL])
_FRAME = struct.Struct("<cQ")
_MIN_FRAMED = 4  # the pickler leaves out the FRAME of fewer bytes than this
_FLOAT = struct.Struct(">d")
_STOP = pickle.STOP[0]
_NAMES = {
    code[0]: name
    for name, code in vars(pickle).items()
    if name.isupper() and isinstance(code, bytes) and len(code) == 1
}


def dumps(value: object) -> bytes:
    """Pickle `value`, which must be plain data within the limits.

    Every container is copied first: the pickler then meets none of them twice, and
    never refers back to one, which `loads` would refuse.

    Raises:
        TypeError: A value inside is not plain data (NumPy scalars are not); the message
            names its path, such as `value['segments'][3]`.
        ValueError: A limit is exceeded, a container contains itself, or a str holds
            surrogates.
    """
    data = pickle.dumps(_Copier().copy(value), protocol=_PROTOCOL)
    if len(data) > MAX_BYTES:
        raise ValueError(
            f"plain data: pickled, value has {len(data)} bytes, at most {MAX_BYTES} are"
            " allowed; send bulk as arrays"
        )
    return data


def loads(data: bytes | bytearray | memoryview) -> Plain:
    """Read back what `dumps` wrote, here or on a peer.

    Takes at most about 50 ms and 4 MB, whatever the bytes are.

    Raises:
        ProtocolError: The bytes are anything but one complete pickle of plain data
            within the limits; nothing else is ever raised on account of them.
    """
    return loads_with_operands(data)[0]


def loads_with_operands(
    data: bytes | bytearray | memoryview,
) -> tuple[Plain, list[Operand]]:
    """Read as `loads`; also return where the operands of scalars lie, in order.

    Of floats, of integers up to 32 bits and of bytes up to 255: others in these places
    make another value and change nothing else.

    Raises:
        ProtocolError: As `loads`.
    """
    with memoryview(data) as view:
        if view.nbytes > MAX_BYTES:
            raise ProtocolError(
                f"pickled data: {view.nbytes} bytes, at most {MAX_BYTES} are allowed"
            )
        content = bytes(view)
    machine = _Machine(content, _skip_header(content))
    return machine.run(), machine.operands


class _Copier:
    """Copies one value, container by container, and refuses what is not plain."""

    __slots__ = ("_containers", "_nodes", "_path", "_text")

    def __init__(self) -> None:
        self._containers: list[int] = []  # identities of those we are inside
        self._path: list[object] = []  # the key or index in each of them
        self._nodes = 0
        self._text = 0

    def copy(self, value: object) -> Plain:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._error(ValueError, f"is beyond the limit of {MAX_NODES} values")
        if value is None or type(value) is bool or type(value) is float:
            return value
        if type(value) is int:
            return self._checked_int(value)
        if type(value) is str:
            return self._checked_str(value)
        if type(value) is bytes:
            self._count_text(len(value))
            return value
        if type(value) is list or type(value) is tuple or type(value) is dict:
            return self._copy_container(value)
        raise self._error(
            TypeError,
            f"is {_type_name(value)}; expected exactly None, bool, int, float, str,"
            " bytes, list, tuple or dict: convert it first",
        )

    def _copy_container(self, value: _Container) -> Plain:
        if id(value) in self._containers:
            raise self._error(ValueError, "contains itself")
        if len(self._containers) == MAX_DEPTH:
            raise self._error(ValueError, f"is nested more than {MAX_DEPTH} deep")
        self._containers.append(id(value))
        copied: Plain
        if isinstance(value, dict):
            copied = self._copy_dict(value)
        elif isinstance(value, list):
            copied = self._copy_items(value)
        else:
            copied = tuple(self._copy_items(value))
        self._containers.pop()
        return copied

    def _copy_items(self, items: list[object] | tuple[object, ...]) -> list[Plain]:
        copied = []
        for index, item in enumerate(items):
            self._path.append(index)
            copied.append(self.copy(item))
            self._path.pop()
        return copied

    def _copy_dict(self, entries: dict[object, object]) -> dict[str, Plain]:
        copied: dict[str, Plain] = {}
        for key, value in entries.items():
            self._path.append(key)
            if type(key) is not str:
                raise self._error(
                    TypeError, f"has a key of type {_type_name(key)}, expected str"
                )
            self._nodes += 1
            copied[self._checked_str(key)] = self.copy(value)
            self._path.pop()
        return copied

    def _checked_int(self, value: int) -> int:
        if not -MAX_INT <= value <= MAX_INT:
            raise self._error(
                ValueError,
                f"has {value.bit_length()} bits, at most"
                f" {MAX_INT.bit_length()} are allowed",
            )
        return value

    def _checked_str(self, value: str) -> str:
        self._count_text(len(value))
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self._error(
                ValueError, f"holds a surrogate at character {error.start}"
            ) from None
        return value

    def _count_text(self, length: int) -> None:
        self._text += length
        if self._text > MAX_TEXT:
            raise self._error(
                ValueError, f"is beyond the limit of {MAX_TEXT} characters; send arrays"
            )

    def _error(self, kind: type[Exception], what: str) -> Exception:
        path = "".join(f"[{key!r:.40}]" for key in self._path)
        return kind(f"plain data: value{path} {what}")


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _skip_header(data: bytes) -> int:
    """Check PROTO and FRAME and return where the opcodes begin."""
    if not data.startswith(_HEADER):
        raise ProtocolError(
            f"pickled data: starts with bytes {data[:2].hex() or 'none'}, expected"
            f" {_HEADER.hex()} (PROTO {_PROTOCOL})"
        )
    start = len(_HEADER)
    if len(data) - start < _MIN_FRAMED:
        return start
    start += _FRAME.size
    frame = data[len(_HEADER) : start]
    if frame != _FRAME.pack(pickle.FRAME, max(len(data) - start, 0)):
        raise ProtocolError(
            f"pickled data: offset {len(_HEADER)}: bytes {frame.hex()}, expected a"
            f" FRAME that covers the rest of {len(data)} bytes"
        )
    return start


class _Machine:
    """The stack machine, with one method for each family of opcodes.

    A container leaves the stack when it is put into another one and cannot come back
    (there is no DUP, and the memo returns no containers). So values are trees, and the
    height of a container is final when it is put into the next: nesting is limited
    without recursion by keeping the height of each container that is on the stack.
    """

    __slots__ = (
        "_data",
        "_heights",
        "_marked",
        "_marks",
        "_memo",
        "_nodes",
        "_opcode_at",
        "_position",
        "_stack",
        "_text",
        "operands",
    )

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self.operands: list[Operand] = []
        self._position = start  # of the next byte to read
        self._opcode_at = start  # of the opcode being run
        self._stack: list[Plain] = []
        # Of the containers on the stack: where, ascending, and how high.
        self._heights: list[tuple[int, int]] = []
        self._marks = [0]  # heights of the stack; the first is its bottom, not a MARK
        self._memo: list[Plain] = []
        self._marked = 0  # MARKs in all
        self._nodes = 0
        self._text = 0

    def run(self) -> Plain:
        data, end = self._data, len(self._data)
        while (at := self._position) < end:
            self._opcode_at = at
            self._position = at + 1
            method = _METHODS[data[at]]
            if method is not None:
                method(self)
            elif data[at] == _STOP:
                return self._result()
            else:
                self._refuse("not an opcode of plain data")
        raise ProtocolError(f"pickled data: ends at offset {end} without STOP")

    def _result(self) -> Plain:
        if len(self._stack) != 1 or len(self._marks) != 1:
            self._refuse(
                f"{len(self._stack)} values and {len(self._marks) - 1} MARKs are left,"
                " expected one value and no MARK"
            )
        left = len(self._data) - self._position
        if left:
            self._refuse(f"{left} bytes follow, expected none")
        return self._stack[0]

    def _refuse(self, what: str) -> NoReturn:
        opcode = self._data[self._opcode_at]
        raise ProtocolError(
            f"pickled data: offset {self._opcode_at}: opcode"
            f" {_NAMES.get(opcode, 'unknown')} (0x{opcode:02x}): {what}"
        )

    # Reading operands

    def _take(self, count: int) -> bytes:
        start = self._position
        end = start + count
        if end > len(self._data):  # before slicing, which would silently return less
            left = len(self._data) - start
            self._refuse(f"needs {count} bytes at offset {start}, {left} are left")
        self._position = end
        return self._data[start:end]

    def _take_number(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    # The stack

    def _push(self, value: Plain) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse(f"more than {MAX_NODES} values")
        self._stack.append(value)

    def _push_container(self, value: Plain, height: int) -> None:
        self._heights.append((len(self._stack), height))
        self._push(value)

    def _push_text(self, value: str | bytes) -> None:
        self._text += len(value)
        if self._text > MAX_TEXT:
            self._refuse(f"more than {MAX_TEXT} characters in all strings")
        self._push(value)

    def _start_of(self, count: int) -> int:
        """Return where the topmost `count` values begin; a MARK hides those below."""
        start = len(self._stack) - count
        if start < self._marks[-1]:
            self._refuse(f"needs {count} more values on the stack than there are")
        return start

    def _pop_mark(self) -> int:
        """Return where the values since the last MARK begin, and forget the MARK."""
        if len(self._marks) == 1:
            self._refuse("there is no MARK before it")
        return self._marks.pop()

    def _cut(self, start: int) -> tuple[list[Plain], int]:
        """Remove and return the values from `start` on, and the height around them."""
        height = 1
        while self._heights and self._heights[-1][0] >= start:
            height = max(height, self._heights.pop()[1] + 1)
        if height > MAX_DEPTH:
            self._refuse(f"nested more than {MAX_DEPTH} deep")
        values = self._stack[start:]
        del self._stack[start:]
        return values, height

    def _top(self, height: int) -> Plain:
        """Return the topmost value, which from now on is at least this high."""
        at = self._start_of(1)
        if self._heights and self._heights[-1][0] == at:  # else it is a scalar
            self._heights[-1] = (at, max(self._heights[-1][1], height))
        return self._stack[at]

    # Opcodes: scalars

    def integer(self, width: int) -> None:
        self.operands.append((self._position, width, "B" if width == 1 else "H"))
        self._push(self._take_number(width))

    def signed_integer(self) -> None:
        self.operands.append((self._position, 4, "i"))
        self._push(int.from_bytes(self._take(4), "little", signed=True))

    def long_integer(self) -> None:
        width = self._take_number(1)
        if width > MAX_INT_BYTES:
            self._refuse(f"integer of {width} bytes, at most {MAX_INT_BYTES} allowed")
        value = int.from_bytes(self._take(width), "little", signed=True)
        if value < -MAX_INT:
            self._refuse(f"integer below {-MAX_INT}")
        self._push(value)

    def floating(self) -> None:
        self.operands.append((self._position, _FLOAT.size, "d"))
        (value,) = _FLOAT.unpack(self._take(_FLOAT.size))
        self._push(value)

    def short_string(self) -> None:
        # What messages have most of: keys. It is `string(1)` without the calls.
        data, start = self._data, self._position + 1
        end = start + data[start - 1] if start <= len(data) else start
        encoded = data[start:end]
        if end > len(data) or not encoded.isascii():
            self.string(1)  # also says what is wrong
            return
        self._position = end
        self._push_text(encoded.decode("ascii"))

    def string(self, width: int) -> None:
        encoded = self._take(self._take_number(width))
        try:
            text = encoded.decode()  # strict: pickle.loads would let surrogates pass
        except UnicodeDecodeError as error:
            self._refuse(f"byte {error.start} of the string is not UTF-8")
        self._push_text(text)

    def byte_string(self, width: int) -> None:
        value = self._take(self._take_number(width))
        if width == 1:
            start = self._position - len(value)
            self.operands.append((start, len(value), f"{len(value)}s"))
        self._push_text(value)

    # Opcodes: containers

    def mark(self) -> None:
        self._marked += 1
        if self._marked > MAX_MARKS:
            self._refuse(f"more than {MAX_MARKS} MARKs")
        self._marks.append(len(self._stack))

    def make_tuple(self, start: int) -> None:
        values, height = self._cut(start)
        self._push_container(tuple(values), height)

    def extend_list(self, start: int) -> None:
        values, height = self._cut(start)
        target = self._top(height)
        if not isinstance(target, list):
            self._refuse(f"expected a list below, got {type(target).__name__}")
        target.extend(values)

    def fill_dict(self, start: int) -> None:
        values, height = self._cut(start)
        target = self._top(height)
        if not isinstance(target, dict):
            self._refuse(f"expected a dict below, got {type(target).__name__}")
        # No values at all are fine: the C pickler ends a dict of 1000 entries so.
        if len(values) % 2:
            self._refuse("a key has no value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str):
                self._refuse(f"key of type {type(key).__name__}, expected str")
            if key in target:
                self._refuse("a key comes twice")
            target[key] = value

    # Opcodes: the memo

    def memoize(self) -> None:
        if len(self._stack) == self._marks[-1]:
            self._start_of(1)  # refuses
        self._memo.append(self._stack[-1])

    def get(self, width: int) -> None:
        index = self._take_number(width)
        if index >= len(self._memo):
            self._refuse(f"memo entry {index} of {len(self._memo)}")
        value = self._memo[index]
        if isinstance(value, list | tuple | dict):
            self._refuse(f"memo entry {index} is a {type(value).__name__}")
        if isinstance(value, str | bytes):
            self._push_text(value)
        else:
            self._push(value)


_OPCODES: dict[int, Callable[[_Machine], None]] = {
    pickle.NONE[0]: lambda m: m._push(None),
    pickle.NEWTRUE[0]: lambda m: m._push(True),
    pickle.NEWFALSE[0]: lambda m: m._push(False),
    pickle.BININT1[0]: lambda m: m.integer(1),
    pickle.BININT2[0]: lambda m: m.integer(2),
    pickle.BININT[0]: _Machine.signed_integer,
    pickle.LONG1[0]: _Machine.long_integer,
    pickle.BINFLOAT[0]: _Machine.floating,
    pickle.SHORT_BINUNICODE[0]: _Machine.short_string,
    pickle.BINUNICODE[0]: lambda m: m.string(4),
    pickle.SHORT_BINBYTES[0]: lambda m: m.byte_string(1),
    pickle.BINBYTES[0]: lambda m: m.byte_string(4),
    pickle.MARK[0]: _Machine.mark,
    pickle.EMPTY_TUPLE[0]: lambda m: m._push_container((), 1),
    pickle.TUPLE1[0]: lambda m: m.make_tuple(m._start_of(1)),
    pickle.TUPLE2[0]: lambda m: m.make_tuple(m._start_of(2)),
    pickle.TUPLE3[0]: lambda m: m.make_tuple(m._start_of(3)),
    pickle.TUPLE[0]: lambda m: m.make_tuple(m._pop_mark()),
    pickle.EMPTY_LIST[0]: lambda m: m._push_container([], 1),
    pickle.APPEND[0]: lambda m: m.extend_list(m._start_of(1)),
    pickle.APPENDS[0]: lambda m: m.extend_list(m._pop_mark()),
    pickle.EMPTY_DICT[0]: lambda m: m._push_container({}, 1),
    pickle.SETITEM[0]: lambda m: m.fill_dict(m._start_of(2)),
    pickle.SETITEMS[0]: lambda m: m.fill_dict(m._pop_mark()),
    pickle.MEMOIZE[0]: _Machine.memoize,
    pickle.BINGET[0]: lambda m: m.get(1),
    pickle.LONG_BINGET[0]: lambda m: m.get(4),
}
_METHODS = [_OPCODES.get(code) for code in range(256)]
