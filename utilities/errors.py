"""What can go wrong, as a tree; each leaf says with which status a script ends.

    TrainingError               1   anything below
    ├── ConfigError             2   a key, flag or file of settings is not acceptable
    ├── NetworkError            3   an address cannot be bound or reached
    ├── IncompatibleError       4   two programs that must not train together
    ├── DataError               5   a text cannot be read or is too small
    ├── RunError                6   a run folder cannot be read, locked or written
    │   └── CheckpointError     6   a checkpoint is not what a run can go on from
    │       └── DamageError     6   a checkpoint is not what was written
    ├── AuthenticationError     7   a join code is missing, wrong or not to be trusted
    ├── ProtocolError           1   a peer broke the rules of the wire
    └── FaultError              1   a fault of the program, whose traceback is kept

A message names who, what was expected, what came, and what to do next. Broken
invariants of our own are assertions, never one of these; a FaultError tells of them.
"""

# What a script's status means, as --help tells it.
STATUSES = {
    0: "ok",
    1: "internal or a package missing",
    2: "options",
    3: "network",
    4: "versions",
    5: "text",
    6: "run folder or disk",
    7: "join code",
    130: "quit by Ctrl-C without saving",
}


class TrainingError(Exception):
    """Base of everything that this program raises on purpose."""

    exit_code = 1


class ConfigError(TrainingError):
    """Refuse a setting: unknown key, wrong type or value out of range."""

    exit_code = 2


class NetworkError(TrainingError):
    """Report an address that cannot be bound or reached."""

    exit_code = 3


class IncompatibleError(TrainingError):
    """Refuse a peer whose version, noise or arithmetic differs."""

    exit_code = 4


class DataError(TrainingError):
    """Refuse a text that cannot be decoded or is too small to train on."""

    exit_code = 5


class RunError(TrainingError):
    """Report a run folder that cannot be found, locked, read or written."""

    exit_code = 6


class CheckpointError(RunError):
    """Refuse a checkpoint whose content does not hash to its digest."""


class DamageError(CheckpointError):
    """Refuse a checkpoint whose bytes are not those that were written."""


class AuthenticationError(TrainingError):
    """Report a join code that is missing or wrong; never quote it."""

    exit_code = 7


class ProtocolError(TrainingError):
    """Report bytes of a peer that break the rules of the wire."""


class FaultError(TrainingError):
    """Report an error that nobody expected: where its traceback lies."""
