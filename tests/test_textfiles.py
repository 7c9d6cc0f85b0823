"""Texts as they are read: files, folders, archives, encodings, standard input."""

import gzip
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities import textfiles
from utilities.data import Text
from utilities.errors import DataError
from utilities.textfiles import STANDARD_INPUT, Decoding, read_text


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("links may not be made on this system")


def test_file_loses_its_byte_order_mark_and_gets_unix_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\rthree\n\r\nf\xc3\xbcnf")

    text = read_text([path])

    assert text == Text("a.txt", ("one\ntwo\nthree\n\nfünf",))


def test_only_the_first_byte_order_mark_is_taken_away(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeff\ufeffa".encode())

    assert read_text([path]).documents == ("\ufeffa",)


@pytest.mark.parametrize("name", ["a.gz", "a.txt.GZ"])
def test_archive_is_decompressed(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, gzip.compress(b"one\r\n") + gzip.compress(b"two"))

    assert read_text([path]).documents == ("one\ntwo",)


def test_folder_is_read_in_the_order_of_relative_paths(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a.txt", "B.txt", "a/b/c", "a-b.txt"):
        write(tmp_path / "texts" / name, name.encode())

    text = read_text([tmp_path / "texts"])

    assert text.name == "texts"
    assert text.documents == ("B.txt", "a-b.txt", "a.txt", "a/b/c", "a/z.txt", "b.txt")


def test_hidden_files_and_readmes_count_only_if_named(tmp_path: Path) -> None:
    for name in ("a", ".b", ".c/d", "README.md", "e/README.md", "e/.f", "e/g.md"):
        write(tmp_path / name, name.encode())

    assert read_text([tmp_path]).documents == ("a", "e/g.md")
    named = [tmp_path / ".b", tmp_path / "README.md", tmp_path / ".c"]
    assert read_text(named).documents == (".b", "README.md", ".c/d")


def test_arguments_keep_their_order(tmp_path: Path) -> None:
    first, second = write(tmp_path / "z", b"1"), write(tmp_path / "a", b"2")

    assert read_text([first, second]) == Text("z, a", ("1", "2"))


def test_file_given_twice_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "texts" / "b", b"b")
    write(tmp_path / "texts" / "a", b"a")
    monkeypatch.chdir(tmp_path)

    text = read_text([path, Path("texts"), Path("texts/../texts/b")])

    assert text == Text("b, texts", ("b", "a"))


def test_links_are_followed_but_never_twice(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "x", b"x")
    write(tmp_path / "texts" / "b", b"b")
    link(tmp_path / "texts" / "a", tmp_path / "elsewhere")
    link(tmp_path / "texts" / "back", tmp_path / "texts")
    link(tmp_path / "texts" / "c", tmp_path / "texts" / "b")

    assert read_text([tmp_path / "texts"]).documents == ("x", "b")


def test_order_does_not_depend_on_how_the_system_lists_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "b" / "x", b"x")
    write(tmp_path / "aa", b"aa")
    link(tmp_path / "a", tmp_path / "b")
    listed = {path: list(path.iterdir()) for path in (tmp_path, tmp_path / "b")}
    listed[tmp_path / "a"] = [tmp_path / "a" / "x"]
    for order in (sorted, lambda paths: sorted(paths, reverse=True)):
        monkeypatch.setattr(Path, "iterdir", lambda p, o=order: iter(o(listed[p])))

        assert read_text([tmp_path]).documents == ("x", "aa")


def test_link_to_nowhere_is_named(tmp_path: Path) -> None:
    link(tmp_path / "broken", tmp_path / "nowhere")

    with pytest.raises(DataError, match=r"broken: .*No such file"):
        read_text([tmp_path])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipe_in_a_folder_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "a", b"a")

    assert read_text([tmp_path]).documents == ("a",)


def test_empty_files_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a", b"")
    write(tmp_path / "b", b"\xef\xbb\xbf")
    write(tmp_path / "c.gz", gzip.compress(b""))
    write(tmp_path / "d", b"d")

    assert read_text([tmp_path]).documents == ("d",)


def test_only_empty_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", b"")
    write(tmp_path / "b", b"")

    with pytest.raises(DataError, match=r"got only empty files \(2\).*--data"):
        read_text([tmp_path / "a", tmp_path / "b"])


def test_folder_without_texts_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "README.md", b"what may lie here")

    with pytest.raises(DataError, match=r"found no file in it.*README\.md"):
        read_text([tmp_path])


def test_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.txt: .*No such file.*check the path"):
        read_text([tmp_path / "absent.txt"])


@pytest.mark.parametrize("method", ["read_bytes", "iterdir"])
def test_refused_permission_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    write(tmp_path / "a.txt", b"a")
    monkeypatch.setattr(Path, method, refuse)

    with pytest.raises(DataError, match=r"Permission denied.*permissions"):
        read_text([tmp_path])


def test_bad_byte_is_named_with_file_line_and_offset(tmp_path: Path) -> None:
    path = write(tmp_path / "latin.txt", b"one\r\ntwo\rthree\ncaf\xe9 au lait\n\xff")

    with pytest.raises(DataError) as caught:
        read_text([path])

    assert str(caught.value) == (
        f"{path}: line 4, byte offset 18: expected UTF-8, got 0xe9;"
        " name what it is with --encoding NAME, or read such bytes as U+FFFD with"
        " --errors replace"
    )


def test_offset_counts_the_byte_order_mark_and_decompressed_bytes(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "a.gz", gzip.compress(b"\xef\xbb\xbfa\n\x80"))

    with pytest.raises(DataError, match=r"line 2, byte offset 5: .*got 0x80"):
        read_text([path])


def test_character_cut_off_at_the_end_is_a_bad_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "aé".encode()[:-1])

    with pytest.raises(DataError, match=r"line 1, byte offset 1: .*got 0xc3"):
        read_text([path])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_recognised(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.txt", "\ufeffhello".encode(encoding))

    with pytest.raises(DataError, match=r"byte offset 0: .*--encoding utf-16,"):
        read_text([path])


def flipped(archive: bytes) -> bytes:
    return archive[:-8] + bytes([archive[-8] ^ 1]) + archive[-7:]


def garbled(archive: bytes) -> bytes:
    return archive[:10] + b"\xff" * 20


def cut(archive: bytes) -> bytes:
    return archive[:-9]


def plain(archive: bytes) -> bytes:
    return b"no archive at all"


@pytest.mark.parametrize("damage", [flipped, garbled, cut, plain])
def test_damaged_archive_is_named(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path / "a.gz", damage(gzip.compress(b"some text" * 9)))

    with pytest.raises(DataError, match=r"a\.gz: expected a whole \.gz archive"):
        read_text([path])


def test_many_names_are_shortened(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.txt", b"x") for i in range(5)]

    assert read_text(paths).name == "0.txt, 1.txt, 2.txt, 2 more"
    assert read_text(paths[:3]).name == "0.txt, 1.txt, 2.txt"


def test_current_folder_goes_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "poems" / "below" / "a", b"a")
    monkeypatch.chdir(tmp_path / "poems")
    assert read_text([Path()]).name == "poems"
    monkeypatch.chdir("below")
    assert read_text([Path("..")]).name == "poems"


def test_name_that_is_not_unicode_becomes_one_that_is(tmp_path: Path) -> None:
    try:
        path = write(tmp_path / os.fsdecode(b"caf\xe9"), b"x")
    except OSError:
        pytest.skip("this file system takes Unicode names only")

    assert read_text([path]).name == "caf?"


def test_reading_nothing_is_a_fault_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        read_text([])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_or_device_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(DataError, match="expected a file or folder, got a pipe"):
        read_text([tmp_path / "pipe"])


# --- encodings and standard input ----------------------------------------------------


def typed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Have standard input hold some bytes."""
    stdin = SimpleNamespace(buffer=io.BytesIO(content))
    monkeypatch.setattr(textfiles.sys, "stdin", stdin)  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-32-be"])
def test_a_text_is_read_in_the_encoding_that_is_named(
    tmp_path: Path, encoding: str
) -> None:
    content = "café\r\nau lait".encode(encoding)
    plain, packed = write(tmp_path / "a", content), tmp_path / "b.gz"
    write(packed, gzip.compress("\ufefföl".encode("utf-8-sig")))

    assert read_text([plain], Decoding(encoding)).documents == ("café\nau lait",)
    assert read_text([packed], Decoding("utf-8-sig")).documents == ("öl",)


def test_a_byte_that_is_not_of_the_encoding_is_named_by_its_line(
    tmp_path: Path,
) -> None:
    content = "one\ntwo\n".encode("utf-16-le") + b"\x00\xd8x\x00"
    path = write(tmp_path / "a", content)

    with pytest.raises(DataError, match=r"line 3, byte offset 16: expected utf-16-le,"):
        read_text([path], Decoding("utf-16-le"))


def test_bytes_of_another_encoding_are_replaced_if_that_is_asked_for(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "a", b"caf\xe9 au lait")

    text = read_text([path], Decoding(errors="replace"))

    assert text.documents == ("caf\ufffd au lait",)


def test_half_a_character_is_refused_or_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "a", b"a+2AA-b")  # UTF-7 of a lone surrogate

    with pytest.raises(DataError, match=r"expected utf-7, got: half a char.*U\+D800"):
        read_text([path], Decoding("utf-7"))
    assert read_text([path], Decoding("utf-7", "replace")).documents == ("a\ufffdb",)


@given(st.binary(max_size=30), st.sampled_from(["ascii", "utf-8", "utf-7", "utf-16"]))
def test_whatever_the_bytes_are_the_text_can_be_hashed_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, encoding: str
) -> None:
    path = write(tmp_path_factory.mktemp("any") / "a", content + b" ")

    with suppress(DataError):
        assert read_text([path], Decoding(encoding)).sha256
    assert read_text([path], Decoding(encoding, "replace")).sha256


def test_a_dash_is_standard_input_in_its_place_and_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, b"\xef\xbb\xbfone\r\ntwo")
    path = write(tmp_path / "a", b"a")

    text = read_text([path, STANDARD_INPUT, STANDARD_INPUT])

    assert text == Text("a, standard input", ("a", "one\ntwo"))


def test_what_is_wrong_with_standard_input_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed(monkeypatch, b"ab\xff")
    with pytest.raises(DataError, match=r"standard input: line 1, byte offset 2: "):
        read_text([STANDARD_INPUT])
    typed(monkeypatch, b"")
    with pytest.raises(DataError, match=r"standard input: .*only empty files"):
        read_text([STANDARD_INPUT])
