"""Pickles that would run, hang or fill the standard reader, and every opcode."""

import subprocess
import sys
from pathlib import Path

from tests.attacks.audited import (
    MEBIBYTE,
    ROOT,
    figures_of,
    read_in_child,
    start_child,
)
from tests.attacks.hostile_pickles import (
    CONTEXTS,
    ENDINGS,
    OPCODES,
    OPERANDS,
    bombs,
)

CHILDREN = 2
WORST_SECONDS = 0.05
MOST_MEMORY = 64 * MEBIBYTE


def test_every_opcode_in_two_hundred_contexts_does_no_harm() -> None:
    assert len(OPCODES) == 68
    assert len(set(CONTEXTS)) >= 200
    children = [start_child("opcodes", number, CHILDREN) for number in range(CHILDREN)]
    found = [figures_of(child) for child in children]

    for figures in found:
        print(figures)
        figures.assert_harmless(worst=WORST_SECONDS, growth=MOST_MEMORY)
        # None of them is a message: most are no plain data, and none is a hello.
        assert figures.refused == figures.attempts
    tried = len(CONTEXTS) * len(OPCODES) * len(OPERANDS) * len(ENDINGS)
    assert sum(figures.attempts for figures in found) == tried


def test_a_thousand_pickles_that_run_something_run_nothing(tmp_path: Path) -> None:
    figures = read_in_child("calls", tmp_path)

    print(figures)
    figures.assert_harmless(worst=WORST_SECONDS, growth=MOST_MEMORY)
    assert figures.attempts == figures.refused >= 1000
    assert list(tmp_path.iterdir()) == []


def test_the_same_pickles_run_in_the_standard_reader(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from tests.attacks.hostile_pickles import traces_left\n"
        f"print(traces_left(Path({str(tmp_path)!r})))\n"
    )
    output = subprocess.check_output(
        [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT
    )

    print(f"the standard reader runs {int(output)} of them")
    assert int(output) > 300


def test_bombs_take_neither_time_nor_memory() -> None:
    figures = read_in_child("bombs")

    print(figures)
    figures.assert_harmless(worst=WORST_SECONDS, growth=MOST_MEMORY)
    assert (figures.attempts, figures.refused) == (len(bombs()), len(bombs()))
