"""Liars in a run: real workers, one of which does not send the losses of its trials."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.wire import Node, Wire
from utilities.noise import Floats
from utilities.protocol import Message, Result

Lie = Callable[[Floats, np.random.Generator], Floats]


def sign_flipped(losses: Floats, _: np.random.Generator) -> Floats:
    """Return losses in which better and worse have changed places."""
    return np.asarray(2 * losses.mean() - losses, np.float32)


def lying(lie: Lie, seed: int = 1) -> Callable[[Message], Message]:
    """Return what makes of a client's true answers what it sends instead."""
    source = np.random.default_rng(seed)

    def tamper(message: Message) -> Message:
        if isinstance(message, Result) and len(message.losses):
            return replace(message, losses=lie(message.losses, source))
        return message

    return tamper


def run_with_liar(
    lie: Lie, honest: int, steps: int, **keys: Any
) -> tuple[Wire, list[Node]]:
    """Run some steps with a liar among honest clients."""
    wire = Wire(**keys)
    nodes = [wire.node(f"c{number}") for number in range(honest)]
    liar = wire.node("liar")
    liar.tamper = lying(lie)
    wire.run_to(steps)
    return wire, [*nodes, liar]


@pytest.mark.parametrize("honest", [1, 2])
@pytest.mark.parametrize("keys", [{}, {"trials_per_step": 24}])
def test_a_liar_is_expelled_by_name_and_nobody_else(
    honest: int, keys: dict[str, Any]
) -> None:
    wire, nodes = run_with_liar(sign_flipped, honest, 20, **keys)

    assert wire.log.said("liar expelled: its losses of step", warning=True)
    assert [peer.name for peer in wire.coordinator.clients] == [
        node.name for node in nodes[:-1]
    ]
    counts = wire.log.closed[-1].audits
    assert counts.expelled == 1
    assert counts.disagreements >= 1
    assert counts.audits > 2 * (honest - 1)
    assert wire.refusals == []
    wire.check()


def test_whoever_is_expelled_is_told_why_and_refused_from_then_on() -> None:
    wire, (*_, liar) = run_with_liar(sign_flipped, 2, 20)

    first, *others = liar.said_goodbye
    assert (first.end, first.reason[:29]) == (
        "refused",
        "expelled: its losses of step ",
    )
    assert others
    assert {goodbye.end for goodbye in others} == {"refused"}
    assert wire.log.said("liar refused: expelled: its losses of step", warning=True)
