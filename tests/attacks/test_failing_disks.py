"""Disks that are full, fail or cannot be written: nothing is announced in vain.

The disk of a real server fails at some moment with an error, and with every later write
as well. What its client was told by then is in the journal: once the disk works again,
the run goes on behind it.
"""

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from tests.processes_under_test import Lab
from utilities.options import parse_server
from utilities.recovery import read_journal
from utilities.setup import prepare

MORTAL = Path(__file__).resolve().parent / "mortal.py"
KEYS = "--trialsPerStep 64 --checkPointTime 0.2 --seed 5"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.name == "nt", reason="its errors have other numbers"),
]


@pytest.mark.parametrize("moment", [60, 61, 62, 63, 90, 131])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_ends_the_run_and_what_was_announced_is_there(
    tmp_path: Path, code: int, moment: int
) -> None:
    lab = Lab(tmp_path)
    note = tmp_path / "died"
    told = {"MORTAL_FILE": str(note), "MORTAL_ERRNO": str(code)}
    env = {**os.environ, **told, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    words = f"{lab.small} {KEYS} --port 0 --runs {lab.runs}".split()
    server = lab.start("server", MORTAL, "server", moment, *words, env=env)
    client = lab.recorded(server.port, "client")
    try:
        assert server.ended() == 6, server
        assert f"cannot be written: {os.strerror(code)}; nothing written" in server.err
        line = f"--runs {lab.runs} --data {lab.text} --resume"
        now = prepare(parse_server(line.split()))
        with closing(now.run):
            files = read_journal(now.run, now.setting)
            known = {record.step for file in files for record in file.records}
        # A client answers step s once it was told the update of step s - 1.
        announced = max(client.digests)
        assert now.state.step >= announced > 0
        assert set(range(now.saved, announced)) <= known
        again = lab.server("--resume --maxSteps 3 --localClients 1")
        assert again.ended() == 0, again
        print(
            f"{errno.errorcode[code]} at moment {moment} ({note.read_text()}): "
            f"step {announced} announced, resumed at {now.state.step}"
        )
    finally:
        lab.close()
