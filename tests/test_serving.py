"""What a server decides before it serves; the rest is tested end to end."""

from pathlib import Path

import pytest

from utilities import serving
from utilities.errors import IncompatibleError
from utilities.options import parse_server
from utilities.serving import check_machine, serve


@pytest.mark.parametrize("name", ["noise_test", "arithmetic_test"])
def test_a_machine_that_computes_otherwise_serves_nobody(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_machine()  # as it is
    monkeypatch.setattr(serving, name, lambda: b"x" * 32)
    runs = tmp_path / "runs"

    with pytest.raises(IncompatibleError, match="noise or arithmetic is not what"):
        serve(parse_server(["--runs", str(runs), "--port", "0"]))
    assert not runs.exists()
