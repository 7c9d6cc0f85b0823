"""Real servers and clients as processes, and what they have written.

Output goes to files, so that no pipe fills up and a server's output is what a user's
would be. Waiting is looking again until a deadline.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SERVER, CLIENT = ROOT / "basicServer.py", ROOT / "basicClient.py"
RECORDING_CLIENT = ROOT / "tests" / "recording_client.py"
# Seconds until a test gives up; a slow machine may ask for more.
PATIENCE = 60.0 * float(os.environ.get("TEST_PATIENCE", "1"))
LOOK = 0.02  # seconds between two looks
LISTENING = re.compile(r"^Listening on \S*:(\d+)", re.MULTILINE)


def until(condition: Callable[[], Any], what: str = "it") -> Any:
    """Return what a condition gives once that is true."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(LOOK)
    return found


class Program:
    """A process whose output can be read while it runs."""

    def __init__(
        self, folder: Path, name: str, command: list[str], **settings: Any
    ) -> None:
        self.name = name
        # Identities are kept in the test's folder, not in the home of who runs it.
        env = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
        settings = {"env": env, **settings}
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=settings.pop("cwd", folder),
                start_new_session=True,
                **settings,
            )

    @property
    def out(self) -> str:
        return self._out.read_bytes().decode("utf-8")

    @property
    def err(self) -> str:
        return self._err.read_bytes().decode("utf-8")

    def has_said(self, pattern: str) -> re.Match[str]:
        """Wait for something in the output."""
        regex = re.compile(pattern, re.MULTILINE)

        def look() -> re.Match[str] | None:
            found = regex.search(self.out)
            ended = self.process.poll() is not None
            if ended and found is None:
                found = regex.search(self.out)
                assert found, f"{self.name} ended without {pattern!r}:\n{self}"
            return found

        match: re.Match[str] = until(look, f"{pattern!r} of {self.name}")
        return match

    @property
    def port(self) -> int:
        """Wait for the port that a server listens on."""
        return int(self.has_said(LISTENING.pattern)[1])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the exit status."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end:\n{self}") from None

    def kill(self) -> None:
        self.process.kill()  # ends one that is stopped, too
        self.process.wait()

    def __str__(self) -> str:
        return f"{self.out}\n--- stderr:\n{self.err}"


@dataclass
class Recorded:
    """A client that takes notes: step and digest of each of its results."""

    program: Program
    file: Path

    @property
    def digests(self) -> dict[int, str]:
        lines = self.file.read_text("ascii").splitlines() if self.file.exists() else []
        return {int(line.split()[0]): line.split()[1] for line in lines if " " in line}

    @property
    def step(self) -> int:
        """Return the newest step that it has answered, -1 if none."""
        return max(self.digests, default=-1)

    def reaches(self, step: int) -> None:
        until(lambda: self.step >= step, f"step {step} of {self.program.name}")


@dataclass
class Lab:
    """A folder with runs, and all processes that a test starts."""

    folder: Path
    programs: list[Program] = field(default_factory=list)

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def code(self) -> list[object]:
        """Return the options of a client that is to have the server's code."""
        file = self.runs / "join-code"
        return ["--tokenFile", file] if file.exists() else []

    @property
    def text(self) -> Path:
        """Return a file with some kilobytes of text."""
        path = self.folder / "text.txt"
        if not path.exists():
            sentences = [
                f"{n} men saw {n * n % 97} cats, I think.\n" for n in range(400)
            ]
            path.write_text("".join(sentences), encoding="utf-8")
        return path

    @property
    def small(self) -> str:
        """Return options of a run whose steps are short."""
        return f"--data {self.text} --hiddenSize 8 --sequenceLength 16 "

    def start(self, name: str, *command: object, **settings: Any) -> Program:
        words = [sys.executable, *map(str, command)]
        number = len(self.programs)
        program = Program(self.folder, f"{number}-{name}", words, **settings)
        self.programs.append(program)
        return program

    def server(self, line: str, *more: object, **settings: Any) -> Program:
        """Start a server on any free port, unless the line names one."""
        port = [] if "--port" in line else ["--port", 0]
        words = ["--runs", self.runs, *port, *line.split(), *more]
        return self.start("server", SERVER, *words, **settings)

    def client(self, port: int, line: str = "") -> Program:
        words = [f"127.0.0.1:{port}", *self.code, *line.split()]
        return self.start("client", CLIENT, *words)

    def recorded(self, port: int, name: str) -> Recorded:
        file = self.folder / f"{name}.steps"
        address = f"127.0.0.1:{port}"
        words = [RECORDING_CLIENT, file, address, *self.code, "--name", name]
        return Recorded(self.start(name, *words), file)

    def metrics(self, run: int = 0) -> list[dict[str, Any]]:
        """Return the lines of the steps."""
        return [line for line in self.lines(run) if line["clients"]]

    def lines(self, run: int = 0) -> list[dict[str, Any]]:
        """Return all lines: after the steps, the state that the session ended with."""
        lines = (self.runs / str(run) / "metrics.jsonl").read_text("ascii")
        return [json.loads(line) for line in lines.splitlines()]

    def checkpoints(self, run: int = 0) -> list[Path]:
        return sorted((self.runs / str(run) / "checkpoints").glob("step-*.npz"))

    def last_checkpoint(self, run: int = 0) -> tuple[int, str]:
        """Return step and digest of the newest checkpoint."""
        with np.load(self.checkpoints(run)[-1], allow_pickle=False) as arrays:
            return int(arrays["stepNum"]), arrays["digest"].tobytes().hex()

    def close(self) -> None:
        for program in self.programs:
            program.kill()


def command_lines() -> Iterator[str]:
    """Yield the command lines of all processes (Linux)."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield file.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:  # it has just ended
            continue


def clients_of(port: int) -> int:
    """Count the clients of a server that run on this machine (Linux)."""
    address = f"127.0.0.1:{port} "
    return sum("lient.py " in line and address in line for line in command_lines())
