"""A hostile crowd around four honest clients, which hardly notice."""

import random
import signal
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.audited import MEBIBYTE
from tests.attacks.hostile_crowd import Crowd, Numbers, dial
from tests.desk import hello
from tests.processes_under_test import Lab, Program, Recorded, until
from utilities.codefiles import read_file
from utilities.handshake import ANSWER, MAGIC, PROOF, VERSION
from utilities.joincodes import Code
from utilities.peers import FIRST_UPDATE_SECONDS
from utilities.sealing import bundled
from utilities.sessions import client_session
from utilities.wire import encode

HONEST = 4
TIME_PER_STEP, GRACE = 0.2, 0.25
QUIET_SECONDS, CROWD_SECONDS = 8.0, 25.0
MOST_MEMORY = 64 * MEBIBYTE
LEAST_KEPT = 0.95
LATE_SECONDS = 0.5  # after the deadline
SETTLED_SECONDS = 5.0  # in which the server has learnt that the deaf do not answer
PATIENCE = 10.0  # seconds for a handshake
SMALL_BUFFER = 4096  # bytes that a client has received and not read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc"),
]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    lab = Lab(tmp_path)
    yield lab
    lab.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# What is said to the server.


def deaf_session(code: Code, port: int) -> socket.socket:
    """Return a session that the server takes for a client's, and nobody reads."""
    connection = socket.socket()
    connection.settimeout(PATIENCE)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    connection.connect(("127.0.0.1", port))
    session = client_session(code)
    while not session.established:
        assert not list(session.receive(connection.recv(4096)))
        connection.sendall(session.reply())
    connection.sendall(b"".join(session.seal(bundled(encode(hello("deaf"))))))
    return connection


def unproved() -> bytes:
    """Return an answer to the server's greeting that proves nothing."""
    return ANSWER.pack(MAGIC, VERSION, bytes(32), bytes(PROOF))


def garbage(rng: random.Random) -> bytes:
    """Return something that a server has to refuse."""
    return rng.choice([b"GET / HTTP/1.1\r\n\r\n", rng.randbytes(90), unproved()])


# Measuring.


def memory(program: Program) -> int:
    """Return the bytes of memory that a process has in use."""
    pages = int(Path(f"/proc/{program.process.pid}/statm").read_text().split()[1])
    return pages * 4096


def after(lines: list[dict[str, Any]], moment: float, until: float) -> Any:
    """Return the lines of steps that closed between two moments."""
    return [line for line in lines if moment < line["time"] <= until]


def kept(lines: list[dict[str, Any]]) -> float:
    """Return how much of the honest clients' work counted."""
    counted: int = sum(min(line["clients"], HONEST) for line in lines)
    return counted / (HONEST * len(lines))


def p99(lines: list[dict[str, Any]]) -> float:
    """Return the seconds that a slow step takes."""
    moments = [line["time"] for line in lines]
    took: list[float] = [b - a for a, b in pairwise(moments)]
    return statistics.quantiles(took, n=100)[98]


def watch(server: Program, seconds: float) -> int:
    """Let some seconds pass; return the most memory that a server had in use."""
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, memory(server))
        time.sleep(0.2)
    return most


@pytest.mark.timeout(300)
def test_a_hostile_crowd_does_not_keep_honest_clients_from_their_work(
    lab: Lab,
) -> None:
    line = f"{lab.small} --timePerStep {TIME_PER_STEP} --grace {GRACE}"
    server = lab.server(line)
    clients = [lab.recorded(server.port, f"honest{n}") for n in range(HONEST)]
    stopped = lab.recorded(server.port, "stopped")
    for client in (*clients, stopped):
        client.reaches(3)

    quiet = time.time()
    before = watch(server, QUIET_SECONDS)
    session = partial(deaf_session, read_file(lab.runs / "join-code"))
    with closing(Crowd(server.port, session, unproved, garbage)) as crowd:
        stopped.program.signal(signal.SIGSTOP)
        struck = time.time()
        crowd.start()
        most = watch(server, CROWD_SECONDS)
        assert crowd.complete()
        assert crowd.counts["failing"] >= 0.9 * Numbers().failing * CROWD_SECONDS
        over = time.time()
        steps, seconds = woken(stopped, clients)
        counts = ", ".join(f"{n:,} {kind}" for kind, n in sorted(crowd.counts.items()))
    lines = lab.metrics()
    calm, hostile = after(lines, quiet, struck), after(lines, struck, over)

    rates = len(calm) / QUIET_SECONDS, len(hostile) / CROWD_SECONDS
    settled = after(lines, struck + SETTLED_SECONDS, over)
    update = max(line["updateSeconds"] or 0.0 for line in hostile)
    first = TIME_PER_STEP + GRACE + FIRST_UPDATE_SECONDS  # with somebody new in it
    deadline = TIME_PER_STEP + GRACE + update
    print(
        f"{counts}; one stopped: honest clients kept {kept(hostile):.1%} of "
        f"{len(hostile)} steps ({rates[1]:.2f} a second, before {rates[0]:.2f}), p99 "
        f"of a step {p99(hostile):.2f} s with the deaf new in it (deadline {first:.2f} "
        f"s), {p99(settled):.2f} s later (deadline {deadline:.2f} s), before "
        f"{p99(calm):.2f} s; server memory + {(most - before) / MEBIBYTE:.1f} MiB; "
        f"the stopped one takes part again {steps} steps, {seconds:.1f} s, after it "
        "was let go"
    )
    assert kept(hostile) >= LEAST_KEPT
    assert p99(hostile) <= first + LATE_SECONDS
    assert p99(settled) <= deadline + LATE_SECONDS
    assert most - before < MOST_MEMORY
    assert len({client.digests[hostile[-1]["step"]] for client in clients}) == 1


def woken(stopped: Recorded, clients: list[Recorded]) -> tuple[int, float]:
    """Let the stopped client go on; return steps and seconds until it takes part."""
    step, began = max(client.step for client in clients), time.monotonic()
    stopped.program.signal(signal.SIGCONT)
    until(lambda: stopped.step > step, "the stopped client")
    return stopped.step - step, time.monotonic() - began


def test_a_crowd_is_as_large_as_it_says() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port = listener.getsockname()[1]
        numbers = Numbers(idle=10, dripping=5, deaf=2, failing=50)
        with closing(Crowd(port, dial, unproved, garbage, numbers)) as crowd:
            crowd.start()
            until(lambda: crowd.complete() and crowd.counts["failing"] > 10)
            counts = crowd.counts
    assert (counts["idle"], counts["dripping"], counts["deaf"]) == (10, 5, 2)
