"""The standard unpickler as the reference for our own decoder, in a child process.

The child has little memory and no globals, and the parent gives it limited time: what
a wrong decoder might wave through can then hurt nobody. Usage in a test:

    count = assert_agrees_with_pickle(single_byte_changes(dumps(fields)))
    assert count > 0  # some changes (of a number, say) are still plain data
"""

import io
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from utilities.errors import ProtocolError
from utilities.plaindata import loads

MEMORY_LIMIT = 2**30  # bytes of address space; CPython itself maps some 100 MB
TIME_LIMIT_S = 60.0  # for a whole batch; a batch of 10,000 takes a fraction of a second
NO_LIMITS = 77  # exit status: this platform cannot limit memory
_LENGTH = struct.Struct("<I")


def assert_agrees_with_pickle(candidates: Iterable[bytes]) -> int:
    """Decode each candidate; compare whatever is accepted with `pickle.loads`.

    Any exception other than ProtocolError passes through. Skips the test where memory
    cannot be limited. Returns how many candidates were accepted.
    """
    accepted: dict[bytes, str] = {}
    for candidate in candidates:
        try:
            accepted[candidate] = canonical(loads(candidate))
        except ProtocolError:
            continue
    expected = reference_loads(list(accepted))
    for (data, ours), theirs in zip(accepted.items(), expected, strict=True):
        assert ours == theirs, f"decoders disagree about {data.hex()}"
    return len(accepted)


def single_byte_changes(data: bytes) -> Iterator[bytes]:
    """Yield `data` with each byte replaced by each of the 255 other values."""
    for position, original in enumerate(data):
        for value in range(256):
            if value != original:
                yield data[:position] + bytes([value]) + data[position + 1 :]


def reference_loads(pickles: Sequence[bytes]) -> list[str]:
    """Return `canonical(pickle.loads(data))`, or `error: …`, for each data.

    One child process loads them all. Skips the test where memory cannot be limited.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.pickle_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    try:
        output, _ = child.communicate(
            b"".join(_LENGTH.pack(len(data)) + data for data in pickles), TIME_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        child.kill()
        output, _ = child.communicate()
    lines = output.decode("ascii").splitlines()
    if child.returncode == NO_LIMITS:
        import pytest  # not at the top: the child has no need of it

        pytest.skip("the memory of a process cannot be limited on this platform")
    if child.returncode or len(lines) != len(pickles):
        raise AssertionError(
            f"pickle.loads died (status {child.returncode}) of"
            f" {pickles[len(lines)].hex() if len(lines) < len(pickles) else 'nothing'}"
        )
    return lines


def canonical(value: object) -> str:
    """Write a value in one line of ASCII, equal only for equal types and values.

    Floats are compared by their bits, dicts with their order.
    """
    if type(value) is float:
        return f"float {struct.pack('>d', value).hex()}"
    if type(value) is list or type(value) is tuple:
        return f"{type(value).__name__}({', '.join(map(canonical, value))})"
    if type(value) is dict:
        entries = (f"{canonical(k)}: {canonical(v)}" for k, v in value.items())
        return f"dict({', '.join(entries)})"
    return f"{type(value).__name__} {value!a}"


class _NoGlobals(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"global {module}.{name}")


def _load(data: bytes) -> str:
    stream = io.BytesIO(data)
    try:
        line = canonical(_NoGlobals(stream).load())
    except Exception as error:  # noqa: BLE001 - it may raise anything; that is the point
        return f"error: {type(error).__name__}: {error!a}"
    return line if not stream.read(1) else "error: trailing bytes"


def _main() -> int:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    except (ImportError, OSError, ValueError):
        return NO_LIMITS
    while header := sys.stdin.buffer.read(_LENGTH.size):
        (length,) = _LENGTH.unpack(header)
        # Flushed each time: the last line tells the parent what killed the child.
        print(_load(sys.stdin.buffer.read(length)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
