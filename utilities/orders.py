"""What the coordinator of evolution strategies is told, and what it orders.

Beside the seam that every way of training has (`events`): replays, checkpoints, sums,
audits, and what has to be durable.
"""

from collections.abc import Iterable
from typing import TypeAlias

from utilities import events
from utilities.audits import Job, Rescored, Resummed
from utilities.events import Drop, Note
from utilities.ledger import Replay, Replayed, Save, Saved
from utilities.outbox import Outbox
from utilities.protocol import End, Goodbye
from utilities.returning import Retrace, Retraced
from utilities.summing import Compute, Computed
from utilities.tally import Append

Done: TypeAlias = Replayed | Saved | Computed | Retraced | Rescored | Resummed
Event: TypeAlias = events.Event | Done
Work: TypeAlias = Append | Replay | Save | Compute | Retrace | Job
Command: TypeAlias = events.Command | Work


class Orders:
    """What is to be done, in order, as far as it is not to be sent."""

    def __init__(self) -> None:
        self._commands: list[Command] = []

    def __iadd__(self, commands: Iterable[Command]) -> "Orders":
        """Order more."""
        self._commands += commands
        return self

    def note(self, text: str, *, warning: bool = False, kind: str = "") -> None:
        """Have something said to a person."""
        self._commands.append(Note(text, warning, kind))

    def drop(self, client: int, end: End, reason: str) -> None:
        """Have a client sent away."""
        self._commands.append(Drop(client, Goodbye(end.value, reason)))

    def flush(self, outbox: Outbox) -> list[Command]:
        """Return everything, and begin anew.

        A step is durable before anybody hears more than its update, which no client
        takes until then; few clients compute what it leads to while the disk writes.
        Messages go ahead of goodbyes.
        """
        commands, self._commands = self._commands, []
        durable = [each for each in commands if isinstance(each, Append)]
        others = [each for each in commands if not isinstance(each, Append)]
        early = outbox.early(durable[0].update) if len(durable) == 1 else []
        return [*early, *durable, *outbox.flush(), *others]
