import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from utilities.curves import Curves
from utilities.errors import TrainingError
from utilities.inspect.pngplot import draw
from utilities.plots import Level, Plot, loss_plot

PNG = b"\x89PNG\r\n\x1a\n"


def plot() -> Plot:
    lines: list[dict[str, Any]] = [
        {
            "step": i,
            "clients": 1,
            "seconds": i + 1.0,
            "trials": 1,
            "validationLoss": 2.5,
        }
        for i in range(3)
    ]
    logs = Curves(0, 0, lines, np.array([3.0, np.nan, 2.0]))
    runs = [("run 7: $x$", logs), ("run 8", logs)]
    return loss_plot(runs, "step", [Level("by pairs", 2.5)])


class Recorder:
    """Something whose every method notes that it was called."""

    def __init__(self, calls: list[tuple[str, Any, Any]]) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> "Recorder":
            self._calls.append((name, arguments, options))
            if name == "savefig":
                arguments[0].write(PNG)
            return self

        return call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """Stand in for matplotlib, which is an extra, and give what it was asked for."""
    found: list[tuple[str, Any, Any]] = []
    module = ModuleType("matplotlib.figure")
    module.Figure = lambda **_: Recorder(found)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", module)
    return found


def test_each_run_is_drawn_in_the_ranges_of_the_plot(
    calls: list[tuple[str, Any, Any]],
) -> None:
    shown = plot()
    assert draw(shown) == PNG

    asked = {name: arguments for name, arguments, _ in calls}
    assert asked["set_xlim"] == (shown.x_scale.low, shown.x_scale.high)
    assert asked["set_ylim"] == (shown.y_scale.low, shown.y_scale.high)
    assert asked["axhline"] == (2.5,)
    assert asked["annotate"][0] == "by pairs"
    labels = [o["label"] for name, _, o in calls if name == "plot" and "label" in o]
    assert labels == [r" run 7: \$x\$", " run 8"]
    assert len({o["color"] for name, _, o in calls if name == "plot"}) == 2
    to, back = next(o["functions"] for n, _, o in calls if n == "secondary_yaxis")
    assert to(1.0) == pytest.approx(1.442695)
    assert back(to(3.0)) == pytest.approx(3.0)


def test_without_matplotlib_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(TrainingError) as caught:
        draw(plot())

    assert caught.value.exit_code == 1
    assert str(caught.value).startswith("matplotlib is not installed, which PNG needs")
    named = Path(str(caught.value).split()[-1])
    assert (named.name, named.is_file()) == ("requirements-plots.txt", True)


def test_matplotlib_itself_draws_it() -> None:
    pytest.importorskip("matplotlib")

    assert draw(plot()).startswith(PNG)
