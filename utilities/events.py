"""The seam between decisions and the world: what happens, and what is to be done.

A coordinator of any way of training takes these events and answers with these
commands; the shell that owns sockets, files and clocks knows nothing else of it. What
only one way of training needs (a replay, a checkpoint) is declared beside its
coordinator.
"""

from dataclasses import dataclass
from typing import TypeAlias

from utilities.protocol import Goodbye, Hello, Message

# Events.


@dataclass(frozen=True)
class Joined:
    """A client has introduced itself."""

    client: int
    hello: Hello


@dataclass(frozen=True)
class Received:
    """A client has sent a message."""

    client: int
    message: Message


@dataclass(frozen=True)
class Left:
    """A client is gone."""

    client: int
    reason: str


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class Stop:
    """Finish the open step, save, end the run."""


Event: TypeAlias = Joined | Received | Left | Tick | Stop

# Commands.


@dataclass(frozen=True)
class Send:
    """Send messages to a client, together."""

    client: int
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Drop:
    """Say goodbye to a client and close its connection."""

    client: int
    goodbye: Goodbye


@dataclass(frozen=True)
class Note:
    """Something that a person may want to know."""

    text: str
    warning: bool = False
    kind: str = ""  # join, leave, audit ...: how a list of events marks it


@dataclass(frozen=True)
class Finish:
    """The run is over and saved."""


Command: TypeAlias = Send | Drop | Note | Finish
