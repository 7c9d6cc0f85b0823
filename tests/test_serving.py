"""What a server decides before it serves; the rest is tested end to end."""

import time
from pathlib import Path

import pytest

from utilities import serving
from utilities.errors import IncompatibleError, NetworkError
from utilities.options import parse_server
from utilities.page import Page
from utilities.pageserver import page_open
from utilities.runs import RunStore
from utilities.serving import check_machine, serve


def test_where_the_page_has_no_port_no_run_is_begun(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with page_open(Page(RunStore(runs), time.monotonic), "127.0.0.1", 0) as other:
        line = ["--runs", str(runs), "--port", "0", "--page", str(other.port)]
        with pytest.raises(NetworkError, match=rf"^the page: .*{other.port}"):
            serve(parse_server(line))
    assert not runs.exists()


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
