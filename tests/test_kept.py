"""What was drawn for own trials is the same whether it was kept or is drawn again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import example_setting, example_tokens, example_weights
from utilities import kept as module
from utilities.evolution import Draw, Segment, Setting, drawn, pieces
from utilities.kept import Kept
from utilities.model import Tokens
from utilities.products import Drawn
from utilities.scoring import score

SETTING = example_setting()
TOKENS = example_tokens(SETTING.config)
SCORED = Segment(7, 2, 10)  # in blocks of four groups


def same(one: Drawn, other: Drawn) -> bool:
    assert one.read is not None
    assert other.read is not None
    assert one.windows is not None
    assert other.windows is not None
    arrays = (
        (one.words, one.read, one.windows),
        (other.words, other.read, other.windows),
    )
    return all(map(np.array_equal, *arrays))


def filled(most: int = 1 << 20, segment: Segment = SCORED) -> Kept:
    kept = Kept(most)
    kept.begin(SETTING, TOKENS)
    for block in pieces([segment], 4):
        kept.keep(block, drawn(SETTING, TOKENS, [block]))
    return kept


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Segment]:
    """Return the segments that are drawn again."""
    segments: list[Segment] = []
    again: Draw = drawn

    def noted(setting: Setting, tokens: Tokens, several: list[Segment]) -> Drawn:
        segments.extend(several)
        return again(setting, tokens, several)

    monkeypatch.setattr(module, "drawn", noted)
    return segments


@given(st.integers(0, 11), st.integers(1, 12))
def test_any_part_of_what_was_scored_or_not_is_what_its_seed_gives(
    first: int, groups: int
) -> None:
    several = [Segment(7, first, groups), Segment(8, 0, 2)]

    found = filled().draw(SETTING, TOKENS, several)

    assert same(found, drawn(SETTING, TOKENS, several))


def test_only_what_is_not_kept_is_drawn_again(asked: list[Segment]) -> None:
    kept = filled()
    inside, new = Segment(7, 5, 6), Segment(8, 1, 3)
    before, beyond = Segment(7, 1, 2), Segment(7, 11, 2)
    several = [new, inside, before, SCORED, beyond]
    expected = drawn(SETTING, TOKENS, several)

    assert same(kept.draw(SETTING, TOKENS, several), expected)
    assert asked == [new, before, beyond]
    asked.clear()
    kept.draw(SETTING, TOKENS, [inside, SCORED])
    assert asked == []


def test_what_would_be_more_than_the_bound_is_drawn_again(
    asked: list[Segment],
) -> None:
    block = drawn(SETTING, TOKENS, [Segment(7, 2, 4)])
    assert block.read is not None
    assert block.windows is not None
    size = block.words.nbytes + block.read.nbytes + block.windows.nbytes
    kept = filled(most=2 * size)

    kept.draw(SETTING, TOKENS, [Segment(7, 2, 8)])
    assert asked == []
    kept.draw(SETTING, TOKENS, [Segment(7, 2, 9)])
    assert asked == [Segment(7, 2, 9)]


def test_nothing_of_another_text_or_run_or_of_what_was_forgotten_is_used(
    asked: list[Segment],
) -> None:
    text, run = TOKENS[::-1].copy(), example_setting(vocab_size=11)

    filled().draw(SETTING, text, [SCORED])
    filled().draw(run, TOKENS, [SCORED])
    forgetful = filled()
    forgetful.forget()
    found = forgetful.draw(SETTING, TOKENS, [SCORED])

    assert asked == [SCORED] * 3
    assert same(found, drawn(SETTING, TOKENS, [SCORED]))


def test_full_noise_is_not_kept(asked: list[Segment]) -> None:
    setting, kept = example_setting(noise="full"), Kept()
    kept.begin(setting, TOKENS)
    kept.keep(SCORED, drawn(setting, TOKENS, [SCORED]))

    found = kept.draw(setting, TOKENS, [SCORED])

    assert asked == [SCORED]
    assert found.read is None
    assert len(found.words) == 10 * setting.config.passes_per_group


@pytest.mark.parametrize("noise", ["lowRank", "full"])
def test_scoring_hands_over_what_was_drawn(noise: str) -> None:
    setting = example_setting(noise=noise)
    given: list[tuple[Segment, Drawn]] = []

    def keep(segment: Segment, found: Drawn) -> None:
        given.append((segment, found))

    weights = example_weights(setting.layout.size)
    score(setting, weights, TOKENS, SCORED, None, keep)

    ((segment, found),) = given
    expected = drawn(setting, TOKENS, [SCORED])
    assert segment == SCORED
    assert np.array_equal(found.words, expected.words)
    assert (found.read is None) == (expected.read is None) == (noise == "full")
    assert found.read is None or same(found, expected)
