"""What a run's config.json may hold: the user's keys, and what a resume needs besides.

Owns the check of a file that somebody may have changed by hand. Does not own what is
done with the values: that is `runs`.
"""

import re
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utilities.config import FORMER, KEYS, Config, from_json, without_gone
from utilities.errors import ConfigError, RunError

_MAX_STEP = 1 << 48
_MAX_SEED = (1 << 64) - 1


@dataclass(frozen=True)
class Extra:
    """What config.json holds under a key that is not one of the configuration."""

    kind: type
    words: str
    most: int = 0  # of a whole number
    pattern: str = ".*"  # of a text

    def accepts(self, value: object) -> bool:
        """Return whether a value is of this kind and in range."""
        if type(value) is not self.kind:  # bool is no number here
            return False
        if isinstance(value, int):
            return 0 <= value <= self.most
        if isinstance(value, list):
            return all(isinstance(part, str) for part in value)
        return re.fullmatch(self.pattern, str(value), re.DOTALL) is not None


EXTRAS: dict[str, Extra] = {
    "firstStep": Extra(int, "a whole number from 0 to 2^48", _MAX_STEP),
    "runSeed": Extra(int, "a whole number below 2^64", _MAX_SEED),
    "textName": Extra(str, "a text"),
    "textSha256": Extra(str, "64 hex digits", pattern="[0-9a-f]{64}"),
    "textPaths": Extra(list, "a list of paths"),
    "program": Extra(str, "a version"),
}


def checked_keys(path: Path, content: object) -> tuple[Config, dict[str, Any]]:
    """Return the configuration and all keys that a config.json holds.

    Keys of the configuration that an older version did not know get their defaults, or
    what makes the run go on as it began.

    Args:
        path: of the file, for messages.
        content: of its JSON.

    Raises:
        RunError: a key is unknown, missing or has a value that is not accepted.
    """
    keys: dict[str, Any] = content if isinstance(content, dict) else {}
    try:
        keys = without_gone(keys, str(keys.get("program") or ""))
    except ConfigError as error:
        raise RunError(f"{path}: {error}") from error
    for key in keys:
        if key not in KEYS and key not in EXTRAS:
            raise RunError(
                f"{path}: {key}: no such key in this version of the program; use the "
                f"version that wrote it ({keys.get('program', 'not named')})"
            )
    for key, extra in EXTRAS.items():
        if not extra.accepts(keys.get(key)):
            raise RunError(
                f"{path}: {key}: expected {extra.words}, got "
                f"{reprlib.repr(keys.get(key))}; restore the file from a copy"
            )
    try:
        known = {key: keys[key] for key in keys if key in KEYS}
        config = from_json(FORMER | known)
    except ConfigError as error:
        raise RunError(f"{path}: {error}; restore the file from a copy") from error
    return config, keys
