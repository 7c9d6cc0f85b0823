"""What clients are called: each by a name of its own, the same when it comes back.

Owns which client gets which name and which sessions are left over of one that has lost
its connection. A client that keeps an identity is known by it for as long as the server
runs; the name that it had stays its own meanwhile. All others are told apart among
those who are here.
"""

from collections.abc import Sequence

from utilities.peers import Peer, unique_name
from utilities.protocol import Hello

RETURNED = "it has connected again"
MOST_REMEMBERED = 4096  # identities; beyond that the oldest is forgotten


class Names:
    """Who has had which name."""

    def __init__(self) -> None:
        """Know nobody."""
        self._known: dict[bytes, tuple[str, str]] = {}  # identity: wanted, given
        self._reserved: set[str] = set()

    def ghosts(self, hello: Hello, here: Sequence[Peer]) -> list[Peer]:
        """Return sessions that are left over of a client that rejoins.

        It was cut off and the server has not noticed yet. Only a process that was here
        before may end them: machines with a copied identity do not drive others out.
        """
        if not hello.identity or hello.last_step is None:
            return []
        return [peer for peer in here if peer.identity == hello.identity]

    def peer(self, client: int, hello: Hello, here: Sequence[Peer]) -> Peer:
        """Return a client under its name.

        Args:
            client: number of its session.
            hello: what it says of itself.
            here: all others.
        """
        name = self._name(hello, {peer.name for peer in here})
        return Peer(client, name, announced=hello.name, identity=hello.identity)

    def _name(self, hello: Hello, taken: set[str]) -> str:
        wanted, given = self._known.pop(hello.identity, ("", ""))
        self._reserved.discard(given)
        if wanted != hello.name or given in taken:
            given = unique_name(hello.name, taken | self._reserved)
        if hello.identity:
            self._known[hello.identity] = (hello.name, given)
            self._reserved.add(given)
        if len(self._known) > MOST_REMEMBERED:
            _, forgotten = self._known.pop(next(iter(self._known)))
            self._reserved.discard(forgotten)
        return given


def arrival(peer: Peer, hello: Hello) -> str:
    """Return that a client is here, and whether it was before."""
    again = "" if hello.last_step is None else f" again (was at {hello.last_step})"
    return f"{peer.name} joined{again}"
