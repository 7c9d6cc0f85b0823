"""Arrays in memory that several processes share: a client's, and its workers' view.

The client has a `Shelf`: it makes the arrays, fills them, and gives the memory back.
A worker has a `Window` on it, by the references that come with each request.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from utilities.errors import TrainingError

Array: TypeAlias = NDArray[Any]
Reference: TypeAlias = tuple[str, str, tuple[int, ...]]  # memory, dtype, shape

SHARED_FOLDER = Path("/dev/shm")  # where Linux keeps shared memory
SPARE = 2  # an array that grows gets so much more than it needs


class Memory(SharedMemory):
    """Shared memory that stays mapped for as long as an array of it is known."""

    def close(self) -> None:
        """Close it here, now or when the last array has gone."""
        with suppress(BufferError):
            super().close()


def view(memory: Memory, dtype: str, shape: Sequence[int]) -> Array:
    """Return an array that begins where the memory does."""
    assert memory.buf is not None, "the memory is open"
    # Not np.ndarray(buffer=...): that lets memory be closed below a living array.
    array = np.frombuffer(memory.buf, np.dtype(dtype), count=math.prod(shape))
    return array.reshape(shape)


def check_room(size: int) -> None:
    """Refuse to share more memory than there is.

    To write where there is none would end this process without a word.

    Raises:
        TrainingError: there is too little.
    """
    if SHARED_FOLDER.is_dir():
        free = shutil.disk_usage(SHARED_FOLDER).free
        if size > free:
            raise TrainingError(
                f"--workers: {size} bytes of memory are to be shared and "
                f"{SHARED_FOLDER} has {free}; enlarge it, or use one worker"
            )


class Shelf:
    """Arrays in shared memory that the client makes and fills."""

    def __init__(self) -> None:
        self._memories: dict[str, Memory] = {}
        self.references: dict[str, Reference] = {}

    def make(
        self, name: str, dtype: DTypeLike, *shape: int, sparse: bool = False
    ) -> Array:
        """Return an array with anything in it, in place of one of that name.

        Args:
            name: of the array.
            dtype: of its elements.
            shape: of the array.
            sparse: only a small part is going to be used.

        Raises:
            TrainingError: there is too little memory.
        """
        size = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
        memory = self._memories.get(name)
        if memory is None or memory.size < size:
            if memory is not None:
                size *= SPARE  # what has grown grows again
            self._drop(name)
            if not sparse:
                check_room(size)
            try:
                memory = self._memories[name] = Memory(create=True, size=size)
            except OSError as error:
                raise TrainingError(
                    f"--workers: {size} bytes of memory cannot be shared "
                    f"({error.strerror}); use one worker"
                ) from error
        self.references[name] = (memory.name, np.dtype(dtype).str, shape)
        return self.look(name)

    def put(self, name: str, array: Array) -> None:
        """Store a copy of an array.

        Raises:
            TrainingError: there is too little memory.
        """
        self.make(name, array.dtype, *array.shape)[...] = array

    def look(self, name: str) -> Array:
        """Return an array that was made; kept, it keeps its memory."""
        _, dtype, shape = self.references[name]
        return view(self._memories[name], dtype, shape)

    def _drop(self, name: str) -> None:
        memory = self._memories.pop(name, None)
        if memory is not None:
            memory.unlink()
            memory.close()

    @property
    def names(self) -> list[str]:
        """Return the system's names of the memory in use."""
        return [memory.name for memory in self._memories.values()]

    def close(self) -> None:
        """Give the memory back."""
        for name in list(self._memories):
            self._drop(name)


class Window:
    """The client's arrays as a worker sees them."""

    def __init__(self) -> None:
        self._memories: dict[str, Memory] = {}

    def arrays(self, references: Mapping[str, Reference]) -> dict[str, Array]:
        """Return the arrays."""
        return {
            name: view(self._memory(name, where), dtype, shape)
            for name, (where, dtype, shape) in references.items()
        }

    def _memory(self, name: str, where: str) -> Memory:
        memory = self._memories.get(name)
        if memory is None or memory.name != where:
            if memory is not None:
                memory.close()
            memory = self._memories[name] = Memory(where)
        return memory
