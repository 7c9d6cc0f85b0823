"""Two machines of one network, one of which vanishes: how long do both take to notice?

unshare --map-root-user --net python vanishing.py     (Linux)

Prints one line of JSON: seconds until each end has found each connection lost. The
machines are network namespaces with a cable between them, which is pulled at the far
end: nothing is reset, nothing is refused, packets get lost.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.loopback import CODE, HELLO, WELCOME, gate
from utilities.communication import Hub
from utilities.connection import Connection
from utilities.errors import NetworkError
from utilities.events import Joined, Left
from utilities.lines import connect, listen
from utilities.sealing import bundled
from utilities.wire import encode

HERE, THERE = "10.77.0.1", "10.77.0.2"
PATIENCE = 60.0
NAMES = ("quiet", "spoken to")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def far(port: int) -> None:
    """Be the machine that vanishes; its clients notice as well."""
    sys.stdin.readline()  # our end of the cable is here
    ip("addr", "add", f"{THERE}/24", "dev", "far0")
    ip("link", "set", "far0", "up")
    lines = [Connection(connect(HERE, port), CODE) for _ in NAMES]
    for line in lines:
        line.send([HELLO])
    print("ready", flush=True)
    sys.stdin.readline()
    ip("link", "set", "far0", "down")
    began = time.monotonic()
    print("vanished", flush=True)
    lines[1].send([HELLO])  # is never acknowledged
    found: dict[str, float] = {}
    while len(found) < len(lines) and time.monotonic() < began + PATIENCE:
        for name, line in zip(NAMES, lines, strict=True):
            if name not in found:
                try:
                    line.receive(wait=False)
                except NetworkError:
                    found[name] = round(time.monotonic() - began, 1)
        time.sleep(0.05)
    print(json.dumps(found), flush=True)


def near() -> None:
    """Be the machine that stays."""
    ip("link", "add", "near0", "type", "veth", "peer", "name", "far0")
    ip("addr", "add", f"{HERE}/24", "dev", "near0")
    hub = Hub(listen(HERE, 0), gate(), 3, time.monotonic)
    command = ["unshare", "--net", sys.executable, __file__, str(hub.port)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    _wait_for_namespace(child.pid)
    ip("link", "set", "far0", "netns", str(child.pid))
    ip("link", "set", "near0", "up")
    child.stdin.write("\n")
    child.stdin.flush()
    joined: list[int] = []
    end = time.monotonic() + PATIENCE
    while len(joined) < len(NAMES) and time.monotonic() < end:
        joined += [e.client for e in hub.poll(0.1) if isinstance(e, Joined)]
    assert child.stdout.readline() == "ready\n"
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "vanished\n"
    began = time.monotonic()
    hub.send(joined[1], bundled(encode(WELCOME)))
    found: dict[str, float] = {}
    while len(found) < len(joined) and time.monotonic() < began + PATIENCE:
        for event in hub.poll(0.1):
            if isinstance(event, Left):
                name = NAMES[joined.index(event.client)]
                found[name] = round(time.monotonic() - began, 1)
    theirs = json.loads(child.stdout.readline())
    print(json.dumps({"server": found, "client": theirs}))
    child.wait()


def _wait_for_namespace(pid: int) -> None:
    """Wait until a process has left our network."""
    ours = Path("/proc/self/ns/net").readlink()
    end = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}/ns/net").readlink() == ours:
        assert time.monotonic() < end
        time.sleep(0.01)


if __name__ == "__main__":
    far(int(sys.argv[1])) if len(sys.argv) > 1 else near()
