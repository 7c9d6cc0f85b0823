"""Sums of reward times signs of one chunk, against plain loops over integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import example_setting
from utilities.model import CHARACTERS, LOGITS
from utilities.noise import Floats
from utilities.products import Products, summed_by_group


@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 5))
def test_rows_of_each_group_are_added_up(groups: int, each: int, size: int) -> None:
    rows = np.arange(groups * each * size, dtype=np.float32).reshape(-1, size)

    found = summed_by_group(rows, groups)

    expected = [
        [sum(int(rows[g * each + k, i]) for k in range(each)) for i in range(size)]
        for g in range(groups)
    ]
    assert found.tolist() == expected


def test_rows_of_a_group_are_added_up_by_hand() -> None:
    rows = np.array([[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]], np.float32)

    assert summed_by_group(rows, 2).tolist() == [[9, 12], [27, 30]]
    assert summed_by_group(rows, 6).tolist() == rows.tolist()


@pytest.mark.parametrize(("model_type", "layers"), [("rnn", 1), ("gru", 1), ("rnn", 3)])
@pytest.mark.parametrize("hidden_size", [2, 12])  # below and above 9 characters
def test_products_are_the_sums_of_each_trial_with_unread_characters_silent(
    model_type: str, layers: int, hidden_size: int
) -> None:
    sizes = {"hidden_size": hidden_size, "n_layers": layers}
    layout = example_setting(model_type=model_type, **sizes).layout
    groups, each = 5, 3
    draw = np.random.default_rng(4)

    def drawn(*shape: int) -> Floats:
        return 2 * draw.integers(0, 2, shape).astype(np.float32) - 1

    signs = {name: drawn(groups * each, n) for name, n in layout.bundles.items()}
    unread = draw.integers(0, 2, (groups, layout.vocab_size)).astype(np.float32)
    silent = np.repeat(unread, each, axis=0) > 0
    signs[CHARACTERS][silent] = -1
    rewards = draw.integers(-126, 127, (2, groups * each))

    wider = {name: np.hstack([part, part]) for name, part in signs.items()}

    products = Products(layout, wider, unread, *rewards.astype(np.float32))

    heard = {name: part.astype(int) for name, part in signs.items()}
    heard[CHARACTERS][silent] = 0
    for tensor, found in products.each():
        expected = np.zeros(tensor.shape, int)
        for k, r in enumerate(rewards[int(tensor.outputs == LOGITS)]):
            b = heard[tensor.outputs][k]
            a = 1 if tensor.inputs is None else heard[tensor.inputs][k]
            expected += r * np.multiply.outer(a, b)
        assert found.reshape(tensor.shape).tolist() == expected.tolist()
