"""Output trials against weights that are perturbed one by one."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from utilities.outputs import SAFE_SHIFT, OutputTrials

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """What clean copies have read, and the directions of trials."""

    states: Floats  # (T, groups, w, H)
    matrix: Floats  # (H, V)
    bias: Floats  # (V,)
    a: Floats  # (groups, K, H)
    b: Floats  # (groups, K, V)
    targets: NDArray[np.uint16]  # (T, groups, w)
    sigma: float = 0.1

    def trials(self, span: int) -> OutputTrials:
        about = self.bias, self.a, self.b, self.sigma, self.targets
        return OutputTrials(*about, span)

    def losses(self, span: int = 4) -> Floats:
        trials = self.trials(span)
        for states in self.states:
            assert trials.take(states, np.exp(states @ self.matrix))
        return trials.losses

    def safe_losses(self) -> Floats:
        trials = self.trials(1)
        for t, states in enumerate(self.states):
            trials.take_safely(t, states, states @ self.matrix + self.bias)
        return trials.losses

    def expected(self) -> list[list[float]]:
        """Return the losses of each trial, by its own output matrix and bias."""
        groups, each = self.a.shape[:2]
        return [
            [self._expected(group, k) for k in range(each)] for group in range(groups)
        ]

    def _expected(self, group: int, k: int) -> float:
        a, b = (x[group, k].astype(np.float64) for x in (self.a, self.b))
        matrix = self.matrix + self.sigma * np.outer(a, b)
        bias = self.bias + self.sigma * b
        logits = self.states[:, group].astype(np.float64) @ matrix + bias
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(logits, self.targets[:, group, :, None], axis=-1)
        return float((np.log(np.exp(logits).sum(axis=-1)) - chosen[..., 0]).mean())


def case(
    seed: int = 1, size: tuple[int, ...] = (7, 2, 1, 4, 9, 3), **keys: Any
) -> Case:
    """Return a case; size is T, groups, w, H, V, K."""
    draw = np.random.default_rng(seed)
    steps, groups, w, hidden, vocabulary, each = size
    made: dict[str, Any] = {
        "states": np.tanh(draw.standard_normal((steps, groups, w, hidden))),
        "matrix": draw.standard_normal((hidden, vocabulary)),
        "bias": draw.standard_normal(vocabulary),
        "a": draw.standard_normal((groups, each, hidden)),
        "b": draw.integers(0, 2, (groups, each, vocabulary)) * 2 - 1,
    }
    arrays = {name: array.astype(np.float32) for name, array in made.items()}
    targets = draw.integers(0, vocabulary, (steps, groups, w)).astype(np.uint16)
    return replace(Case(**arrays, targets=targets), **keys)


def test_a_loss_by_hand() -> None:
    one = Case(
        states=np.array([[[[0.5]]]], np.float32),
        matrix=np.array([[2, -1, 0.5]], np.float32),
        bias=np.array([0, 1, -1], np.float32),
        a=np.array([[[-1]]], np.float32),
        b=np.array([[[1, 1, -1]]], np.float32),
        targets=np.array([[[2]]], np.uint16),
        sigma=0.25,
    )

    s = 0.25 * (-0.5 + 1)
    logits = [1 + s, -0.5 + 1 + s, 0.25 - 1 - s]
    expected = math.log(sum(map(math.exp, logits))) - logits[2]
    assert one.losses().tolist() == [[pytest.approx(expected, abs=1e-6)]]


@given(
    st.integers(0, 1000),
    st.tuples(*(st.integers(1, most) for most in (9, 3, 3, 5, 9, 4))),
    st.integers(1, 10),
)
def test_losses_are_those_of_perturbed_weights_however_many_are_held(
    seed: int, size: tuple[int, ...], span: int
) -> None:
    some = case(seed, size)

    expected = np.array(some.expected())

    assert some.losses(span) == pytest.approx(expected, abs=1e-5)
    assert some.safe_losses() == pytest.approx(expected, abs=1e-5)


def test_without_directions_losses_are_clean() -> None:
    some = case()
    nothing = replace(some, b=np.zeros_like(some.b))

    assert nothing.losses() == pytest.approx(np.array(nothing.expected()), abs=1e-6)
    assert (nothing.losses() == nothing.losses()[:, :1]).all()


def test_a_group_does_not_depend_on_others() -> None:
    some = case()
    alone = replace(
        some,
        states=some.states[:, 1:],
        a=some.a[1:],
        b=some.b[1:],
        targets=some.targets[:, 1:],
    )

    assert alone.losses() == pytest.approx(some.losses()[1:], abs=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_shift_beyond_what_is_safe_is_told(sign: int) -> None:
    some = case(sigma=1.0)
    large = replace(some, a=np.full_like(some.a, sign))
    trials = replace(large, states=np.full_like(some.states, SAFE_SHIFT)).trials(2)

    assert trials.take(some.states[0], np.exp(some.states[0] @ some.matrix))
    ones = np.full_like(some.states[0], SAFE_SHIFT)
    assert not trials.take(ones, np.exp(some.states[1] @ some.matrix))


@pytest.mark.parametrize(("bias", "safe"), [(-87, True), (-88, False)])
def test_a_choice_with_less_than_all_digits_is_told(bias: float, safe: bool) -> None:
    some = case()
    rare = replace(some, bias=np.full_like(some.bias, 0))
    rare.bias[3] = bias
    trials = replace(rare, targets=np.full_like(some.targets, 3)).trials(1)

    with np.errstate(divide="ignore"):
        assert (
            trials.take(some.states[0], np.exp(0 * some.states[0] @ some.matrix))
            == safe
        )


@pytest.mark.parametrize(("logit", "safe"), [(88.0, True), (88.7, False)])
def test_a_sum_that_only_noise_makes_too_large_is_told(
    logit: float, safe: bool
) -> None:
    some = case(sigma=0.1)
    trials = replace(some, bias=np.zeros_like(some.bias)).trials(1)
    exps = np.exp(0 * some.states[0] @ some.matrix)
    exps[..., 2] = np.exp(np.float32(logit))

    assert np.isfinite(exps.sum(axis=-1)).all()
    with np.errstate(over="ignore"):
        assert trials.take(some.states[0], exps) == safe


def test_after_a_restart_nothing_is_left() -> None:
    some = case()
    trials = some.trials(2)
    for states in some.states[:3]:
        trials.take(states, np.exp(states @ some.matrix))

    trials.restart()

    for states in some.states:
        trials.take(states, np.exp(states @ some.matrix))
    assert trials.losses.tobytes() == some.losses(2).tobytes()


def test_logits_that_could_overflow_are_scored_safely() -> None:
    some = case(sigma=2.0)
    large = replace(some, matrix=some.matrix * 1000, bias=some.bias * 1000)

    expected = np.array(large.expected())

    assert expected.max() > 100
    assert large.safe_losses() == pytest.approx(expected, rel=1e-5)
