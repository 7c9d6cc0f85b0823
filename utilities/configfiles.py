"""Configuration keys from files, and which of several values counts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from utilities.config import (
    KEYS,
    Config,
    changed_shape,
    from_json,
    parse_keys,
    without_gone,
)
from utilities.errors import ConfigError


def read_config_file(path: Path, ignored: Sequence[str]) -> dict[str, object]:
    """Return the keys of a JSON file.

    Args:
        path: of the file; a run's own config.json will do, but for its step: that is
            where that run is, not where another begins.
        ignored: keys that a run's config.json has besides.

    Raises:
        ConfigError: the file cannot be read, or is not an object of known keys.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"--config: cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--config: {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config: expected an object of keys in {path}")
    keys = {key: value for key, value in content.items() if key not in ignored}
    if len(keys) < len(content):
        keys.pop("stepNum", None)
    try:
        keys = without_gone(keys, str(content.get("program") or ""))
        parse_keys(keys)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return keys


def merged(
    flags: Mapping[str, object], file: Mapping[str, object], resumed: Config | None
) -> Config:
    """Return the configuration: flag, then file, then the resumed run, then default.

    Raises:
        ConfigError: a value is not accepted, or would change what a resumed run is.
    """
    keys = {**file, **flags}
    if resumed is None:
        return from_json(keys)
    if str(keys.get("vocabSize", "null")) in ("null", "none", "None"):
        keys.pop("vocabSize", None)  # all characters: those of the run
    if "stepNum" in flags and int(str(flags["stepNum"])) != resumed.step_num:
        raise ConfigError(
            f"stepNum: --resume continues at step {resumed.step_num}, "
            f"got {flags['stepNum']}"
        )
    keys.pop("stepNum", None)
    config = from_json(keys, resumed)
    changed = changed_shape(resumed, config)
    if changed is not None:
        name = KEYS[changed]
        raise ConfigError(
            f"{changed}: the resumed run has {getattr(resumed, name)} and cannot "
            f"change to {getattr(config, name)}; start a new run for that"
        )
    return config
