"""A million frames that were written correctly and then changed."""

from collections.abc import Sequence

import pytest

from tests.attacks.audited import (
    MEBIBYTE,
    PARAMETERS,
    figures_of,
    read_in_child,
    start_child,
)
from tests.attacks.mutations import mutated
from tests.messages import comparable
from tests.pickle_child import reference_loads
from tests.slow_protocol import frames_in, transcript, transcripts
from utilities.errors import ProtocolError
from utilities.wire import Inbox, Side

FRAMES = 1_000_000
CHILDREN = 2  # at once: a core each
WORST_SECONDS = 0.05  # of one frame
MOST_MEMORY = 64 * MEBIBYTE  # of all


@pytest.mark.slow
@pytest.mark.timeout(600)  # of a loaded machine
def test_a_million_mutated_frames_give_messages_or_protocol_errors() -> None:
    children = [
        start_child("frames", seed, FRAMES // CHILDREN) for seed in range(CHILDREN)
    ]
    found = [figures_of(child) for child in children]

    for figures in found:
        print(figures)
        figures.assert_harmless(worst=WORST_SECONDS, growth=MOST_MEMORY)
        assert figures.attempts == FRAMES // CHILDREN
        assert figures.refused > figures.attempts / 2  # they are hostile indeed
        assert figures.messages > figures.attempts / 20  # but not all the same way
        assert figures.proved > 1000


def test_the_hook_of_the_child_sees_what_must_not_happen() -> None:
    figures = read_in_child("control")

    assert figures.stray[0].startswith("ModuleNotFoundError")
    for event in ("import", "open", "compile", "exec", "os.system"):
        assert any(seen.split()[0] == event for seen in figures.seen), event
    with pytest.raises(AssertionError):
        figures.assert_harmless(worst=1e9, growth=1 << 60)


def outcome(side: Side, opening: bytes, pieces: Sequence[bytes]) -> tuple[object, ...]:
    """Return what was read of some pieces, and the words of a refusal."""
    inbox = Inbox(side, PARAMETERS)
    inbox.feed(opening)
    found = list(inbox.messages())
    try:
        for piece in pieces:
            inbox.feed(piece)
            found += inbox.messages()
    except ProtocolError as error:
        return (*map(comparable, found), str(error))
    return (*map(comparable, found),)


@pytest.mark.slow
@pytest.mark.timeout(600)  # of a loaded machine
def test_mutated_frames_mean_the_same_however_they_are_cut() -> None:
    splits = 0
    for side, opening, pieces in mutated(seed=9, count=600):
        data = b"".join(pieces)
        whole = outcome(side, opening, [data])
        single = outcome(side, opening, [bytes([byte]) for byte in data])
        assert single == whole, data.hex()
        for cut in range(0, len(data), 1 + len(data) // 100):
            assert outcome(side, opening, [data[:cut], data[cut:]]) == whole, data.hex()
            splits += 1
    print(f"600 mutated frames, {splits:,} splits in two, all read the same")


def test_what_is_read_of_mutated_frames_is_what_a_slow_reader_reads() -> None:
    read, frames = [], []
    for side, opening, parts in mutated(seed=5, count=6000):
        inbox = Inbox(side)
        inbox.feed(opening)
        list(inbox.messages())
        inbox.feed(b"".join(parts))
        try:
            messages = list(inbox.messages())
        except ProtocolError:
            continue
        if messages:
            read.append([*map(transcript, messages)])
            frames.append(frames_in(b"".join(parts)))
    pickles = [p for each in frames for tag, p in each if tag == "pickle"]
    heads = iter(reference_loads(pickles))

    for ours, each in zip(read, frames, strict=True):
        assert ours == transcripts(each, heads)
    assert len(read) > 500
