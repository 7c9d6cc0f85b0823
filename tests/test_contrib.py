"""What lies in contrib/ parses, where its tool is here, and uses options that exist."""

import json
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utilities.clientoptions import parse_client
from utilities.errors import TrainingError
from utilities.machine import config_folder
from utilities.options import parse_server

ROOT = Path(__file__).parents[1]
CONTRIB = ROOT / "contrib"
UNITS = sorted((CONTRIB / "systemd").glob("*.service"))
FILES = [p for p in sorted(CONTRIB.rglob("*")) if p.is_file() and p.suffix != ".md"]
DOCKER = CONTRIB / "Dockerfile"
SLURM = CONTRIB / "slurm" / "basicClient.sbatch"


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, none of which goes over its line."""
    lines = [line for line in text(path).splitlines() if not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def started(path: Path) -> list[tuple[str, list[str]]]:
    """Return what a container runs, in two parts."""
    parts = ("ENTRYPOINT", "CMD")
    return [(w, json.loads(rest)) for w, rest in instructions(path) if w in parts]


def command(path: Path) -> list[str]:
    """Return what a file runs: the program's name and its options."""
    if path == DOCKER:
        return [word for _, words in started(path) for word in words][1:]
    if path.suffix == ".plist":
        return list(plistlib.loads(path.read_bytes())["ProgramArguments"][1:])
    joined = re.sub(r"[\\`]\n\s*", " ", text(path))
    joined = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", joined)  # a shell's defaults
    line = next(x for x in joined.splitlines() if re.search(r"basic\w+\.py", x))
    found = re.search(r"basic\w+\.py[^`]*", line)
    assert found is not None
    words = found[0] if path.suffix != ".ps1" else found[0].split('"')[0]
    return shlex.split(words)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_options_are_accepted_by_the_program(path: Path) -> None:
    program, *options = command(path)

    if program == "basicServer.py":
        assert parse_server(options).resume
    else:
        assert program == "basicClient.py"
        assert parse_client(options, "desk").address == "lab-host"


def test_an_option_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(TrainingError, match="--noMains"):
        parse_client(["lab-host", "--noMains"], "desk")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_is_explained_in_three_lines(path: Path) -> None:
    chapters = re.split(r"^## ", text(CONTRIB / "README.md"), flags=re.MULTILINE)[1:]
    folder = path.parent.name
    names = {"systemd": "systemd", "windows": "Task", "launchd": "launchd"}
    names["contrib"] = "Docker"
    title = names.get(folder, "Slurm")
    (chapter,) = [c for c in chapters if c.startswith(title)]

    assert len(chapter.strip().splitlines()[2:]) == 3
    assert path.stem in chapter
    assert "README.md" in text(path)


def test_the_page_names_options_that_exist() -> None:
    page = text(CONTRIB / "README.md")
    lines = re.findall(r"basicClient\.py (lab-host [^>`]*|--doctor lab-host)", page)

    assert len(lines) == 2
    for line in lines:
        assert parse_client(line.split(), "desk").address == "lab-host"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_statuses_that_end_a_unit_are_those_of_errors_that_stay(path: Path) -> None:
    found = re.search(r"^RestartPreventExitStatus=(.*)$", text(path), re.MULTILINE)

    assert found is not None
    assert {"2"} <= set(found[1].split()) <= {"2", "4", "5", "6", "7"}


def test_a_container_has_what_a_client_needs_and_none_of_the_secrets() -> None:
    done = instructions(DOCKER)
    copied = {rest.split()[0] for word, rest in done if word == "COPY"}

    assert {word for word, _ in done} <= {
        *("FROM", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "STOPSIGNAL"),
        *("ENTRYPOINT", "CMD"),
    }
    assert copied == {"requirements.txt", "basicClient.py", "utilities"}
    assert all((ROOT / name).exists() for name in copied)
    assert [word for word, _ in started(DOCKER)] == ["ENTRYPOINT", "CMD"]


def test_a_containers_user_owns_the_volume_in_which_settings_lie() -> None:
    done = instructions(DOCKER)
    user, volume = dict(done)["USER"], dict(done)["VOLUME"]
    folder = config_folder("linux", {"HOME": f"/home/{user}"})
    (made,) = [rest for word, rest in done if "useradd" in rest]

    assert folder == Path(volume) / "basicClient"
    assert f"install -d -o {user} -g {user} {volume}" in made
    assert done.index(("RUN", made)) < done.index(("USER", user))
    assert f"-v training:{volume} " in text(CONTRIB / "README.md")


def verified(unit: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Let systemd read a unit whose folder and interpreter exist."""
    path = folder / "unit.service"
    unit = unit.replace("%h/training/.venv/bin/python", sys.executable)
    path.write_text(unit.replace("%h/training", str(folder)), encoding="utf-8")
    return subprocess.run(
        ["systemd-analyze", "verify", "--user", path],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here"
)
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_its_units(path: Path, tmp_path: Path) -> None:
    well = verified(text(path), tmp_path)
    assert (well.returncode, well.stdout, well.stderr) == (0, "", "")

    wrong = verified(text(path).replace("KillMode", "KilMode"), tmp_path)
    assert "KilMode" in wrong.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_understands_the_script_of_slurm() -> None:
    subprocess.run(["bash", "-n", SLURM], check=True, timeout=20)


@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
def test_the_script_of_slurm_runs_a_client_with_its_cores(tmp_path: Path) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    slurm = {
        **{"TRAINING": str(tmp_path), "SERVER": "login:5", "SLURM_CPUS_PER_TASK": "4"},
        **{"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3"},
    }
    ran = subprocess.run(
        ["bash", SLURM],
        env={**os.environ, **slurm},
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=20,
    )
    program, *words = ran.stdout.split()
    options = parse_client(words, "desk")

    assert program == "basicClient.py"
    assert (options.address, options.workers, options.name) == (
        *("login:5", 4, "slurm-77-3"),
    )
