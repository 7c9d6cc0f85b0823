import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from utilities import processes
from utilities.errors import CheckpointError, ConfigError, NetworkError, TrainingError
from utilities.joincodes import OPEN, Code
from utilities.processes import (
    COLLECTED,
    THREAD_VARIABLES,
    client_command,
    collect_seldom,
    cores,
    local_clients,
    missing_package,
    one_core,
    run_program,
    signals,
    slow_start,
    worker_count,
)

ROOT = Path(__file__).parents[1]
PATIENCE = 10.0
CODE = Code(b"sixteen secrets!")
SAYS_HELLO = "import sys; print('hello', *sys.argv[1:], flush=True); "
UNTIL_PARENT_ENDS = SAYS_HELLO + "sys.stdin.read()"
FOR_EVER = SAYS_HELLO + "import time; time.sleep(3600)"


def missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


# A whole program.


def test_matrix_products_stay_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in THREAD_VARIABLES:
        monkeypatch.setenv(variable, "8")
    one_core()

    assert all(os.environ[variable] == "1" for variable in THREAD_VARIABLES)


def test_circles_of_references_are_looked_for_less_often() -> None:
    before = gc.get_threshold()
    try:
        collect_seldom()

        assert gc.get_threshold() == (COLLECTED, *before[1:])
    finally:
        gc.set_threshold(*before)


def test_cores_are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == 16
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


@pytest.mark.parametrize(
    ("asked", "available", "count"), [(1, 8, 1), (9, 8, 9), (0, 8, 7), (0, 1, 1)]
)
def test_one_core_is_left_free_where_no_number_of_workers_is_given(
    asked: int, available: int, count: int
) -> None:
    assert worker_count(asked, available) == count


def test_a_program_that_does_its_work_ends_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done: list[int] = []

    assert run_program("program.py", lambda: done.append(1)) == 0
    assert done == [1]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TrainingError("why"), 1),
        (ConfigError("why"), 2),
        (NetworkError("why"), 3),
        (CheckpointError("why"), 6),
    ],
)
def test_a_program_that_fails_says_why_in_one_line(
    error: TrainingError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert run_program("program.py", fail) == code
    assert capsys.readouterr() == ("", "program.py: why\n")


def test_what_an_error_quotes_cannot_break_its_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise ConfigError("noise: got a\nb\x1b[31m\r, not ä")

    run_program("program.py", fail)

    assert capsys.readouterr().err == "program.py: noise: got a?b?[31m?, not ä\n"


@pytest.mark.parametrize("name", ["numpy", "numpy.linalg", "tqdm"])
def test_a_package_that_is_missing_is_named_with_the_command_for_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise missing(name)

    assert run_program("program.py", fail) == 1
    said = capsys.readouterr().err
    assert said == (
        f"program.py: {name} is not installed; run: {sys.executable} -m pip install "
        f"-r {ROOT / 'requirements.txt'}\n"
    )


def test_a_module_of_our_own_that_is_missing_is_a_fault_of_the_program() -> None:
    with pytest.raises(ModuleNotFoundError, match="utilities"):
        missing_package(missing("utilities.nothing"))


def test_other_faults_of_the_program_are_not_hidden() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_program("program.py", fail)


def test_ctrl_c_before_anything_is_prepared_ends_without_a_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert run_program("program.py", interrupted) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("slow", [True, False])
def test_a_start_that_takes_long_is_explained(
    slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = threading.Event()

    def complain(*_: object) -> int:
        said.set()
        return 0

    monkeypatch.setattr(processes, "_complain", complain)
    monkeypatch.setattr(processes, "SLOW_SECONDS", 0.0 if slow else PATIENCE)
    with slow_start("program.py"):
        assert not slow or said.wait(PATIENCE)

    assert said.is_set() == slow
    assert not any(isinstance(t, threading.Timer) for t in threading.enumerate())


# Local clients.


@pytest.fixture
def started(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Return the processes that are started, in order."""
    children: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*arguments: object, **settings: object) -> subprocess.Popen[bytes]:
        settings["stdout"] = subprocess.PIPE
        child: subprocess.Popen[bytes] = real(*arguments, **settings)  # type: ignore[call-overload]
        children.append(child)
        return child

    monkeypatch.setattr(subprocess, "Popen", popen)
    yield children
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replace the client by another program."""

    def use(code: str) -> None:
        def command(address: str, name: str, *more: str) -> list[str]:
            return [sys.executable, "-c", code, address, name, *more]

        monkeypatch.setattr(processes, "client_command", command)

    return use


Started = list[subprocess.Popen[bytes]]
Program = Callable[[str], None]


def first_line(child: subprocess.Popen[bytes]) -> bytes:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_local_client_is_a_quiet_one_that_ends_with_its_parent() -> None:
    assert client_command("[::1]:80", "local-1") == [
        sys.executable,
        str(ROOT / "basicClient.py"),
        *("[::1]:80", "--name", "local-1", "--quiet", "--endWithParent"),
    ]


def test_local_clients_have_names_and_groups_of_their_own_and_end_with_the_context(
    started: Started, program: Program
) -> None:
    program(UNTIL_PARENT_ENDS)
    with local_clients(2, "lab:80", CODE):
        said = [first_line(child) for child in started]
        groups = {os.getpgid(child.pid) for child in started}
        assert all(child.poll() is None for child in started)

    assert said == [b"hello lab:80 local-1", b"hello lab:80 local-2"]
    assert len(groups | {os.getpgrp()}) == 3
    assert [child.returncode for child in started] == [0, 0]


SAYS_CODE = (
    "import os, sys; print(os.environ.get('ES_JOIN_CODE'), *sys.argv[1:], flush=True); "
    "sys.stdin.read()"
)


@pytest.mark.parametrize("code", [CODE, OPEN], ids=["code", "open"])
def test_local_clients_get_the_code_where_others_do_not_see_it(
    started: Started, program: Program, code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ES_JOIN_CODE", "another one")
    program(SAYS_CODE)
    with local_clients(1, "lab:80", code):
        said = first_line(started[0]).decode()

    if code.open:
        assert said == "None lab:80 local-1 --noAuth"
    else:
        assert said == f"{code.shown()} lab:80 local-1"


def test_local_clients_end_where_the_context_fails(
    started: Started, program: Program
) -> None:
    program(UNTIL_PARENT_ENDS)
    with pytest.raises(ZeroDivisionError), local_clients(1, "lab:80", CODE):
        raise ZeroDivisionError

    assert started[0].returncode is not None


def test_clients_that_do_not_end_are_killed_together_after_a_while(
    started: Started, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LAST_SECONDS", 0.3)
    program(FOR_EVER)
    with local_clients(3, "lab:80", CODE):
        for child in started:
            first_line(child)
        began = time.monotonic()

    assert [child.returncode for child in started] == [-signal.SIGKILL] * 3
    assert time.monotonic() - began < 0.8


def test_no_local_clients_are_none(started: Started) -> None:
    with local_clients(0, "lab:80", CODE):
        assert not started


@pytest.mark.parametrize("how", ["close", "kill"])
def test_a_local_client_ends_when_its_parent_does_however_that_is(how: str) -> None:
    child = (
        "from utilities.processes import end_with_parent; import time\n"
        "end_with_parent(); print('up', flush=True); time.sleep(3600)"
    )
    parent = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=-1)\n"
        "how = sys.stdin.readline().strip()\n"
        "child.stdin.close() if how == 'close' else os.kill(os.getpid(), 9)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.stdin.write(f"{how}\n".encode())
        process.stdin.flush()
        if how == "close":
            # Its end of standard output is the last one but the parent's own.
            process.stdin.close()
        # Ends only once nobody holds the pipe: the child neither.
        assert process.stdout.read() == b""
    assert process.returncode == (0 if how == "close" else -signal.SIGKILL)


def test_a_standard_input_that_is_closed_counts_as_a_parent_that_has_ended() -> None:
    code = (
        "import os, time; from utilities.processes import end_with_parent\n"
        "os.close(0); end_with_parent(); time.sleep(3600)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        timeout=PATIENCE,
        capture_output=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


# Signals.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_calls_the_handler_while_the_context_is_open(
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    calls: list[int] = []
    with signals(lambda: calls.append(1)):
        signal.raise_signal(number)
        signal.raise_signal(number)

    assert calls == [1, 1]
    assert signal.getsignal(number) is before


def test_signals_are_given_back_where_the_context_fails() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), signals(lambda: None):
        raise ZeroDivisionError

    assert signal.getsignal(signal.SIGINT) is before
