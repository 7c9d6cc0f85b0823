"""How long a late answer is waited for, and who is to blame that it is late. No I/O.

A client that is late holds up everybody, so it is not waited for until it is in time
again. Where most are late at once, though, the server was slow, or the network. Were
they not waited for, the next step would close on the answer of the few that were in
time, milliseconds before all the others, which would be late once more, for ever.
"""

from collections.abc import Sequence

from utilities.config import Config
from utilities.events import Note
from utilities.peers import Peer

ROUND_TRIPS = 2  # of the usual length that an answer may take beside its work
NAMED = 10  # clients that are late at once and get a line each


def grace_seconds(config: Config, run: float, round_trip: float) -> float:
    """Return how long a late answer is waited for.

    Args:
        config: of the run; what it says holds.
        run: seconds of trials in one step.
        round_trip: seconds that the answer of a typical client takes beside its work,
            which grow with their number; allowed for as far as an update is.
    """
    usual = config.grace_seconds(run)
    if config.grace is not None:
        return usual
    return max(usual, min(ROUND_TRIPS * round_trip, max(1.0, run)))


def most(late: int, punctual: int) -> bool:
    """Return whether most are late of those waited for; one alone is not most."""
    return late > max(punctual, 1)


def blame(step: int, missing: Sequence[Peer], answered: Sequence[Peer]) -> list[Note]:
    """Wait no more for clients that are to blame; return what is to be said.

    Where most are late, only those are to blame that owe an answer of the step before
    as well: they are silent.

    Args:
        step: that closes.
        missing: who has not answered it.
        answered: who has.
    """
    late = [peer for peer in missing if peer.waited]
    punctual = sum(peer.waited for peer in answered)
    blamed, notes = late, list[Note]()
    if most(len(late), punctual):
        blamed = [peer for peer in late if peer.owes(step - 1)]
    if len(blamed) < len(late):
        every = len(late) + punctual
        text = f"{len(late)} of {every} clients are late at step {step}: this machine "
        notes.append(Note(f"{text}or the network was slow; they are waited for", True))
    for peer in blamed:
        peer.waited = False
    tail = f"late at step {step}; not waited for"
    return notes + _lines(blamed, f"{{}} is {tail}", f"{{}} clients are {tail}")


def late_sums(step: int, peers: Sequence[Peer]) -> list[Note]:
    """Return what is to be said of clients whose sums are late at a step."""
    one, many = "{}: its sum is late at step", "{} clients: their sums are late at step"
    return _lines(peers, f"{one} {step}", f"{many} {step}")


def _lines(peers: Sequence[Peer], one: str, many: str) -> list[Note]:
    """Return a line for each client, or one for all of many."""
    if len(peers) > NAMED:
        return [Note(many.format(len(peers)))]
    return [Note(one.format(peer.name)) for peer in peers]
