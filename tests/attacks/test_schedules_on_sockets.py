"""Fifty seeded schedules of faults on real sockets, between real processes."""

import json
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.fault_proxy import HEALED, FaultProxy, Faults
from tests.processes_under_test import Lab, until

SCHEDULES = 50
CLIENTS = ("ann", "bob", "eve")
TELLING_CLIENT = Path(__file__).with_name("telling_client.py")
STEPS_AFTER = 2  # of every client, when the faults of a schedule are over
KINDS = {
    "timed": "--timePerStep 0.05",
    "fixed": "--trialsPerStep 4096",
    "sums": "--timePerStep 0.05 --aggregation sums",
}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


class Replica:
    """A client behind a proxy of its own, and what it has told."""

    def __init__(self, lab: Lab, name: str, port: int) -> None:
        self.name = name
        self.proxy = FaultProxy(port)
        self._file = lab.folder / f"{name}.jsonl"
        address = f"127.0.0.1:{self.proxy.port}"
        code = getattr(lab, "code", [])  # options of a client that is to be let in
        words = [TELLING_CLIENT, self._file, address, *code, "--name", name]
        self.program = lab.start(name, *words)
        self._lines: list[dict[str, Any]] = []
        self._read = 0  # bytes of the file: asked often, it grows all the time

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Return what it has told of a kind, in order."""
        if self._file.exists():
            with self._file.open("rb") as file:
                file.seek(self._read)
                whole = file.read().rpartition(b"\n")
            self._lines += map(json.loads, whole[0].splitlines())
            self._read += len(whole[0] + whole[1])
        return [line for line in self._lines if line["kind"] == kind or not kind]

    @property
    def step(self) -> int:
        """Return the newest step that it has answered."""
        return max((line["step"] for line in self.told("result")), default=-1)


def some_faults(rng: random.Random) -> tuple[str, Faults]:
    """Return one of the seven faults."""
    return rng.choice(
        [
            ("latency", Faults(latency=rng.uniform(0.01, 0.3))),
            ("bandwidth", Faults(bandwidth=rng.uniform(5e3, 5e5))),
            ("slow_close", Faults(slow_close=rng.uniform(0.1, 0.5))),
            ("timeout", Faults(timeout=rng.uniform(0.1, 0.6))),
            ("slicer", Faults(slicer=rng.randint(1, 300), latency=1e-4)),
            ("limit_data", Faults(limit_data=rng.randint(0, 5000))),
            ("reset_peer", Faults(reset_peer=True)),
        ]
    )


def strike(rng: random.Random, replicas: list[Replica]) -> str:
    """Let something be wrong with some of the connections for a while."""
    name, faults = some_faults(rng)
    for replica in rng.sample(replicas, rng.randint(1, len(replicas))):
        replica.proxy.set(faults)
        if name == "slow_close" or rng.random() < 0.2:
            replica.proxy.cut()
    time.sleep(rng.uniform(0.05, 0.4))
    for replica in replicas:
        replica.proxy.set(HEALED)
    return name


def settled(replicas: list[Replica]) -> None:
    """Wait until every client has answered some more steps."""
    goal = max(replica.step for replica in replicas) + STEPS_AFTER
    for replica in replicas:
        until(partial(_answers, replica, goal), f"step {goal} of {replica.name}")


def _answers(replica: Replica, goal: int) -> bool:
    return replica.step >= goal


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_no_schedule_on_real_sockets_makes_replicas_differ(kind: str, lab: Lab) -> None:
    number = list(KINDS).index(kind)
    seeds = range(number, SCHEDULES, len(KINDS))
    server = lab.server(f"{lab.small} {KINDS[kind]}")
    faults: Counter[str] = Counter()
    with ExitStack() as stack:
        replicas = [Replica(lab, name, server.port) for name in CLIENTS]
        for replica in replicas:
            stack.callback(replica.proxy.close)
        settled(replicas)
        for seed in seeds:
            print(f"schedule {seed}", end=" ")
            rng = random.Random(seed)
            faults.update(strike(rng, replicas) for _ in range(rng.randint(1, 3)))
            settled(replicas)
        server.signal(signal.SIGINT)
        assert server.ended() == 0, server
        for replica in replicas:
            assert replica.program.ended() == 0, replica.program
        connections = sum(replica.proxy.connections for replica in replicas)
    steps, trials = hold(lab, replicas)
    told = ", ".join(f"{count} {name}" for name, count in sorted(faults.items()))
    print(
        f"\n{kind}: {len(seeds)} schedules on sockets ({told}), {connections} "
        f"connections, {steps} steps, {trials} trials each counted once, all digests "
        "equal"
    )


def hold(lab: Lab, replicas: list[Replica]) -> tuple[int, int]:
    """Hold the history against what it must be; return its steps and trials."""
    digests = {line["step"]: line["digest"] for line in lab.lines()}
    assert [line["step"] for line in lab.metrics()] == list(range(len(digests) - 1))
    updates: dict[int, dict[str, Any]] = {}
    answered: dict[tuple[int, int, int], int] = {}  # the most groups of a segment
    for replica in replicas:
        in_order(replica)
        for line in replica.told("result"):
            assert line["digest"] == digests[line["step"]], replica.name
            for seed, first, groups in line["segments"]:
                place = line["step"], seed, first
                answered[place] = max(groups, answered.get(place, 0))
        for line in replica.told("update"):
            assert updates.setdefault(line["step"], line) == line, "a fork"
    final = max(digests)
    assert lab.last_checkpoint() == (final, digests[final])
    assert sorted(updates) == list(range(min(updates), final))
    counted: set[tuple[int, int]] = set()
    for step, update in updates.items():
        for seed, first, groups in update["segments"]:
            # A client that did more than all others counts for half of a step.
            assert groups <= answered[step, seed, first], "nobody has answered that"
            trials = {(seed, group) for group in range(first, first + groups)}
            assert not counted & trials, "a trial counts twice"
            counted |= trials
    return final, sum(update["trials"] for update in updates.values())


def in_order(replica: Replica) -> None:
    """Hold that a replica applies each update once, from each welcome on."""
    step = None
    for line in replica.told(""):
        if line["kind"] == "welcome":
            step = line["step"]
        elif line["kind"] == "update":
            assert line["step"] == step, replica.name
            step += 1


# The proxy itself.


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with closing(connection):
            try:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def dial() -> Iterator[tuple[FaultProxy, Callable[[], socket.socket]]]:
    """Give a proxy before an echo, and what connects to it."""
    with ExitStack() as stack:
        echo = stack.enter_context(closing(Echo()))
        proxy = stack.enter_context(closing(FaultProxy(echo.port)))

        def connect() -> socket.socket:
            address = ("127.0.0.1", proxy.port)
            return stack.enter_context(socket.create_connection(address, 10.0))

        yield proxy, connect


def asked(connection: socket.socket, data: bytes) -> bytes:
    """Return what comes back of data, as much as comes."""
    connection.sendall(data)
    found = b""
    while len(found) < len(data) and (more := connection.recv(1 << 16)):
        found += more
    return found


Dial = tuple[FaultProxy, Callable[[], socket.socket]]


@pytest.mark.parametrize(
    "faults", [HEALED, Faults(slicer=7), Faults(bandwidth=1e6), Faults(latency=0.01)]
)
def test_the_proxy_passes_everything_on(dial: Dial, faults: Faults) -> None:
    proxy, connect = dial
    proxy.set(faults)
    data = bytes(range(256)) * 8

    assert asked(connect(), data) == data
    assert proxy.connections == 1


def test_the_proxy_is_slow_where_it_has_to_be(dial: Dial) -> None:
    proxy, connect = dial
    connection = connect()
    for faults, least in ((Faults(latency=0.1), 0.2), (Faults(bandwidth=1e4), 0.2)):
        proxy.set(faults)
        began = time.monotonic()
        asked(connection, b"x" * 1000)
        assert time.monotonic() - began >= least


def test_the_proxy_closes_after_so_many_bytes(dial: Dial) -> None:
    proxy, connect = dial
    connection = connect()
    proxy.set(Faults(limit_data=100))

    assert len(asked(connection, b"x" * 1000)) < 101


def test_the_proxy_holds_everything_up_until_it_is_healed(dial: Dial) -> None:
    proxy, connect = dial
    connection = connect()
    proxy.set(Faults(timeout=60.0))
    connection.sendall(b"held")
    connection.settimeout(0.1)
    with pytest.raises(TimeoutError):
        connection.recv(10)

    proxy.set(HEALED)
    connection.settimeout(10.0)

    assert connection.recv(10) == b"held"


def test_the_proxy_closes_what_it_has_held_up_for_too_long(dial: Dial) -> None:
    proxy, connect = dial
    connection = connect()
    proxy.set(Faults(timeout=0.05))

    assert asked(connection, b"lost") == b""


def test_the_proxy_tells_of_a_closing_late(dial: Dial) -> None:
    proxy, connect = dial
    connection = connect()
    asked(connection, b"x")
    proxy.set(Faults(slow_close=0.1))
    began = time.monotonic()
    connection.shutdown(socket.SHUT_WR)

    assert connection.recv(10) == b""
    assert time.monotonic() - began >= 0.2  # there and back


def test_the_proxy_resets(dial: Dial) -> None:
    proxy, connect = dial
    connection = connect()
    asked(connection, b"x")
    proxy.set(Faults(reset_peer=True))

    with pytest.raises(ConnectionResetError):
        connection.recv(10)
