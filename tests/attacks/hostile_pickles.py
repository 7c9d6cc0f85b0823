"""Pickles that are meant to do harm, made by hand: no pickler writes these."""

import itertools
import pickle
import pickletools
import struct
from collections.abc import Iterator
from pathlib import Path

OPCODES = [ord(opcode.code) for opcode in pickletools.opcodes]


def short(text: str) -> bytes:
    """Return the operation that pushes a short text."""
    return b"\x8c" + bytes([len(text.encode())]) + text.encode()


def framed(body: bytes) -> bytes:
    """Return a pickle of protocol 4 with one frame."""
    return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body


# Every opcode in many contexts.

# What may lie on the stack (and in the memo) when an opcode comes.
_VALUES = (
    *(b"N", b"\x88", b"K\x05", b"J\xff\xff\xff\xff", b"\x8a\x01\x07"),
    *(b"G?\xf0\0\0\0\0\0\0", short("a"), b"C\x01z", b")", b"]", b"}"),
    *(b"]Na", b"K\x01\x85", b"}" + short("a") + b"Ns"),
)
# Nothing, one value, one that is remembered, one below a mark, a pair, a nested pair.
CONTEXTS = (
    *(b"", b"(", b"((", b"N(", b"](", b"}(", b"}(" + short("k")),
    *_VALUES,
    *(value + b"\x94" for value in _VALUES),
    *(b"(" + value for value in _VALUES),
    *(b"]\x94(" + value for value in _VALUES),
    *(one + other for one, other in itertools.product(_VALUES, repeat=2)),
)
OPERANDS = (b"", b"\0", b"\x01a", b"\0\0\0\0", b"1\n", b"os\nsystem\n", b"\xff" * 8)
ENDINGS = (b".", b"t.", b"0.")


def opcodes_in_contexts(first: int, step: int) -> Iterator[bytes]:
    """Yield each opcode in each context with each operand, every `step`-th of them."""
    every = itertools.product(CONTEXTS, OPCODES, OPERANDS, ENDINGS)
    for context, code, operand, ending in itertools.islice(every, first, None, step):
        yield framed(context + bytes([code]) + operand + ending)


# Pickles that run something.


def _loaders(module: str, name: str) -> list[bytes]:
    """Return operations that push a function."""
    dotted = f"{module}\n{name}\n".encode()
    return [
        b"c" + dotted,
        short(module) + short(name) + b"\x93",
        short(module) + b"\x94" + short(name) + b"\x94h\0h\x01\x93",
        b"X" + struct.pack("<I", len(module)) + module.encode() + short(name) + b"\x93",
    ]


def _programs(module: str, name: str, argument: str) -> Iterator[bytes]:
    """Yield operations that call a function with one text."""
    text = short(argument)
    for load in _loaders(module, name):
        yield load + text + b"\x85R"  # REDUCE
        yield load + b"(" + text + b"tR"
        yield b"(" + load + text + b"o"  # OBJ
        yield load + text + b"\x85\x81"  # NEWOBJ
        yield load + text + b"\x85}\x92"  # NEWOBJ_EX
        yield load + b")R}" + text + b"Nsb"  # BUILD
    yield b"(" + text + f"i{module}\n{name}\n".encode()  # INST
    for number in range(3):  # EXT1, EXT2, EXT4
        width = 1 << number
        code = bytes([0x82 + number]) + (1).to_bytes(width, "little")
        yield code + text + b"\x85R"
    yield b"P" + argument.encode() + b"\n"  # PERSID
    yield text + b"Q"  # BINPERSID
    yield b"\x97" + text + b"\x86"  # NEXT_BUFFER


def _wrapped(program: bytes) -> Iterator[bytes]:
    """Yield pickles in which operations stand where a reader may not look."""
    head = b"}" + short("kind") + short("hello") + b"s"
    yield framed(program + b".")
    yield b"\x80\x04" + program + b"."
    yield framed(b"]" + program + b"a.")
    yield framed(head + short("auth") + program + b"s.")
    yield framed(b"N" + program + b"0.")  # the value is thrown away again
    yield framed(b"N.") + program + b"."  # after the end
    yield framed(program[:3]) + program[3:] + b"."  # across the frame's end


# Functions, and the text with which each makes a folder.
TARGETS = (
    ("os", "mkdir", "{path}"),
    ("os", "makedirs", "{path}"),
    ("builtins", "exec", "__import__('os').mkdir({path!r})"),
    ("builtins", "eval", "__import__('os').mkdir({path!r})"),
    ("__builtin__", "eval", "__import__('os').mkdir({path!r})"),
    ("os", "mkfifo", "{path}"),
)


def calls(folder: Path) -> Iterator[bytes]:
    """Yield pickles of which many make a folder below one, read by the standard one."""
    number = itertools.count()
    for module, name, form in TARGETS:
        for program in range(len([*_programs("", "", "")])):
            for wrapping in range(len([*_wrapped(b"")])):
                argument = form.format(path=str(folder / f"trace{next(number)}"))
                chosen = [*_programs(module, name, argument)][program]
                yield [*_wrapped(chosen)][wrapping]


# Pickles that take time or memory.


def _limit(body: bytes) -> bytes:
    """Return as much of a program as one message may hold."""
    return framed(body[: 60_000 - 11])


def bombs() -> dict[str, bytes]:
    """Return pickles that hang or fill the standard reader, or try to hang ours."""
    keys = b"".join(
        b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N"
        for k in range(1, 4200)
    )
    return _of_the_standard_reader(keys) | _of_ours()


def _of_the_standard_reader(keys: bytes) -> dict[str, bytes]:
    """Return what the standard reader hangs at, or takes gigabytes for."""
    huge = struct.pack("<Q", 1 << 40)
    return {
        "memo of 8 million entries in 9 bytes": b"\x80\x04Nr\0\0\x80\0.",
        "memo of a billion entries": framed(b"Nr\xff\xff\xff\x3f."),
        "memo of a billion entries as text": framed(b"Np1073741823\n."),
        "bytes of a terabyte": framed(b"\x8e" + huge),
        "text of a terabyte": framed(b"\x8d" + huge),
        "bytearray of a terabyte": framed(b"\x96" + huge),
        "frame of a terabyte": b"\x80\x04\x95" + huge + b"N.",
        "bytes of 2 GiB": framed(b"B\xff\xff\xff\x7f."),
        "text of 4 GiB": framed(b"X\xff\xff\xff\xff."),
        "integer of 2 GiB": framed(b"\x8b\xff\xff\xff\x7f."),
        "hash that takes centuries in 127 bytes": framed(
            b"})" + b"2\x86" * 60 + b"Ns."
        ),
        "the same by the memo": framed(
            b"})" + b"".join(b"\x94h%c\x86" % i for i in range(60)) + b"Ns."
        ),
        "integers that collide as keys": _limit(b"}(" + keys),
        "billion laughs": framed(
            b"]\x94N"
            + b"".join(b"a](" + b"h%c" % i * 9 + b"e\x94" for i in range(30))
            + b"."
        ),
        "list that contains itself in 7 bytes": framed(b"]\x94h\0a."),
        "list 20,000 deep": _limit(b"]" * 19_000 + b"a" * 18_999 + b"."),
        "list 200,000 deep": framed(b"]" * 200_000 + b"a" * 199_999 + b"."),
        "number of 60,000 digits": _limit(b"I" + b"9" * 60_000),
        "long of 60,000 digits": _limit(b"L" + b"9" * 59_000 + b"L\n."),
    }


def _of_ours() -> dict[str, bytes]:
    """Return what takes a reader of these opcodes as long as it can."""
    text = b"X\x30\x75\0\0" + b"x" * 30_000 + b"\x94"
    return {
        "empty appends": _limit(b"]" + b"(e" * 30_000),
        "empty items": _limit(b"}" + b"(u" * 30_000),
        "items of many dicts": _limit(b"]" + b"}(ua" * 15_000),
        "tuples of nothing": _limit(b"]" + b"(ta" * 20_000),
        "towers": _limit((b"]" * 31 + b"a" * 30) * 1000),
        "towers of marks": _limit(b"]" + (b"(" * 30 + b"t" * 30 + b"a") * 1000),
        "marks": _limit(b"(" * 60_000),
        "values": _limit(b"N" * 60_000),
        "memo": _limit(b"N" + b"\x94" * 60_000),
        "memo and back": _limit(b"](K\x01\x94" + b"h\0" * 30_000),
        "texts": _limit(b"(" + b"\x8c\x02\xc3\xa4" * 15_000),
        "long text, often": framed(b"(" + text + b"h\0" * 14_000),
        "dicts of one item": _limit(b"(" + (b"}" + short("a") + b"Ns") * 15_000),
        "a thousand keys": framed(
            b"}(" + b"".join(short(f"{n:05}") + b"N" for n in range(7_000)) + b"u."
        ),
    }


# What the standard reader makes of them.


def traces_left(folder: Path) -> int:
    """Let the standard reader read all pickles that run something; count traces.

    Call it in a process of its own.
    """
    for data in calls(folder):
        try:
            pickle.loads(data)
        except Exception:  # noqa: BLE001 - most of them end in some error
            continue
    return len(list(folder.iterdir()))
