"""What the coordinator of evolution strategies is told, and what it orders.

Beside the seam that every way of training has (`events`): replays, checkpoints, sums,
audits, and what has to be durable.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from utilities import events
from utilities.audits import Job, Rescored, Resummed
from utilities.events import Drop, Note, Send
from utilities.evolution import Update
from utilities.ledger import Replay, Replayed, Save, Saved
from utilities.outbox import Outbox
from utilities.protocol import End, Goodbye, Message
from utilities.returning import Retrace, Retraced
from utilities.summing import Compute, Computed
from utilities.tally import Append

Done: TypeAlias = Replayed | Saved | Computed | Retraced | Rescored | Resummed
Event: TypeAlias = events.Event | Done
Work: TypeAlias = Append | Replay | Save | Compute | Retrace | Job
Command: TypeAlias = events.Command | Work
Messages: TypeAlias = tuple[Message, ...]

FEW_CLIENTS = 32  # that get an update before it is durable


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

        A step is durable before anybody hears of it, unless it is sent `ahead`;
        messages go ahead of goodbyes.
        """
        commands, self._commands = self._commands, []
        durable = [each for each in commands if isinstance(each, Append)]
        others = [each for each in commands if not isinstance(each, Append)]
        return [*durable, *outbox.flush(), *others]


def ahead(commands: Sequence[Command]) -> list[Command]:
    """Return the same commands, with the update of a step sent before it is durable.

    Clients compute what it leads to while the disk writes, and take it when something
    follows. To many, two messages each take as long as a slow disk does; and where
    steps that were handed back are written, none is sent ahead.
    """
    updates = [each.update for each in commands if isinstance(each, Append)]
    sends = sum(isinstance(each, Send) for each in commands)
    if len(updates) != 1 or sends > FEW_CLIENTS:
        return list(commands)
    early: list[Command] = []
    rest: list[Command] = []
    for command in commands:
        if isinstance(command, Send):
            before, after = parted(command.messages, updates[0])
            early += [Send(command.client, before)] if before else []
            rest += [Send(command.client, after)] if after else []
        else:
            rest.append(command)
    return [*early, *rest]


def parted(messages: Messages, update: Update) -> tuple[Messages, Messages]:
    """Return what comes up to an update and with it, and what follows."""
    places = [n for n, message in enumerate(messages, 1) if message is update]
    end = places[0] if places else 0
    return messages[:end], messages[end:]
