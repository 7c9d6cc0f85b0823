"""Arrays that processes share: what one writes the others read, and nothing stays."""

import errno
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from utilities import shelf as shelf_module
from utilities.errors import TrainingError
from utilities.shelf import Shelf, Window


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """Return a shelf whose memory is given back whatever happens."""
    shelf = Shelf()
    yield shelf
    shelf.close()


def exists(name: str) -> bool:
    """Return whether shared memory can still be found by its name."""
    try:
        SharedMemory(name).close()
    except FileNotFoundError:
        return False
    return True


def test_a_window_shows_what_is_on_the_shelf(shelf: Shelf) -> None:
    window = Window()
    shelf.put("a", np.array([[1, 2], [3, 4]], np.int8))
    shelf.make("empty", np.float32, 0, 5)
    seen = window.arrays(shelf.references)
    shelf.look("a")[1, 1] = 9

    assert seen["a"].tolist() == [[1, 2], [3, 9]]
    assert (seen["empty"].dtype.str, seen["empty"].shape) == ("<f4", (0, 5))
    seen["a"][0, 0] = 7
    assert shelf.look("a").tolist() == [[7, 2], [3, 9]]


def test_an_array_that_grows_gets_memory_to_spare(shelf: Shelf) -> None:
    window, names = Window(), []
    for length in (2, 1, 3, 6, 7):  # memory for 2, for twice 3, for twice 7
        shelf.put("a", np.arange(length, dtype=np.float32))
        seen = window.arrays(shelf.references)["a"]
        assert seen.tolist() == shelf.look("a").tolist() == [*range(length)]
        names += shelf.names
        del seen

    assert [names.index(name) for name in names] == [0, 0, 2, 2, 4]
    assert [exists(name) for name in names] == [False] * 4 + [True]


def test_an_array_in_use_outlives_its_place_on_the_shelf_and_in_a_window(
    shelf: Shelf,
) -> None:
    window = Window()
    shelf.put("a", np.ones(3))
    old, seen = shelf.look("a"), window.arrays(shelf.references)["a"]
    name = shelf.names[0]
    shelf.put("a", np.zeros(4))
    new = window.arrays(shelf.references)["a"]

    assert not exists(name)
    old += 1
    assert seen.tolist() == [2, 2, 2]
    assert new.tolist() == [0, 0, 0, 0]


def test_nothing_is_left_of_a_shelf_though_an_array_is_in_use(shelf: Shelf) -> None:
    shelf.put("a", np.ones(3))
    array, names = shelf.look("a"), shelf.names
    shelf.close()
    shelf.close()

    assert array.tolist() == [1, 1, 1]
    assert (len(names), shelf.names) == (1, [])
    assert not exists(names[0])


def test_more_memory_than_there_is_is_refused_in_words(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = SimpleNamespace(free=100)
    monkeypatch.setattr(shelf_module, "SHARED_FOLDER", tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
    shelf.put("fits", np.zeros(100, np.int8))
    shelf.make("hardly used", np.int8, 1000, sparse=True)
    with pytest.raises(TrainingError, match=r"^--workers: 101 bytes .* has 100; enl"):
        shelf.put("large", np.zeros(101, np.int8))


def test_memory_that_cannot_be_shared_is_told_in_words(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(create: bool, size: int) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(shelf_module, "Memory", refuse)
    message = r"^--workers: 16 bytes of memory cannot be shared \(Too many open files\)"
    with pytest.raises(TrainingError, match=message):
        shelf.put("a", np.zeros(2))


def test_room_is_not_looked_for_where_memory_has_no_folder(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shelf_module, "SHARED_FOLDER", tmp_path / "none")
    shelf.put("a", np.zeros(10, np.int8))

    assert shelf.look("a").tolist() == [0] * 10
