"""The keys of a run: defaults with reasons, ranges, spelling, JSON.

Python reads ``config.time_per_step``; what a user types or finds on disk or on the
wire is ``timePerStep``. That translation lives here alone. A `Config` that exists is
valid: every way to make one checks it, and a refusal names the key, the value, what
is allowed and, for a wrong name, the nearest key.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from utilities.errors import ConfigError
from utilities.misc import camel_case, sha256
from utilities.progress import (
    AUTO_TRIALS,
    AUTO_TRIALS_BY_WEIGHTS,
    AUTO_TRIALS_NEWEST,
    LARGEST_LAYER,
    MOST_COUNTED,
    Decay,
    Growth,
)

Value: TypeAlias = str | int | float | None

AUTO_RATE = 0.6  # of one hidden unit
AUTO_RATE_UNSHAPED = 0.38  # where noise does not follow the states
AUTO_RATE_BY_WEIGHTS = 0.48  # where trials are taken as of weights: there is more noise
AUTO_RATE_UNSCALED = 0.32  # where noise and steps are the same everywhere
# Factors of a covariance cost their cube: beyond, more than they give.
MOST_WHITENED, MOST_WHITENED_BY_WEIGHTS = 256, 128  # units
MOST_PLACES = 64  # of a group: beyond, estimates of nodes cost more than they give
MAX_PARAMETERS = 1 << 26  # 268 MB for each of weights, m and v: absurd for ES already


@dataclass(frozen=True)
class Rule:
    """What one key accepts and says of itself in --help."""

    kind: type  # int, float or str
    text: str
    low: float = 0.0
    high: float = 0.0
    exclusive: bool = False  # low itself is refused
    choices: tuple[str, ...] = ()
    optional: bool = False  # None is accepted and means what the text says
    absent: str = "null"  # how a user writes None
    shapes: bool = False  # covered by the configuration hash
    former: Value = None  # what runs did before there was the key, if it is younger
    unit: str = ""

    @property
    def allowed(self) -> str:
        """Return what is accepted, in words."""
        if self.kind is str:
            return " or ".join(self.choices) or "text"
        noun = "a whole number" if self.kind is int else "a number"
        edge = "above" if self.exclusive else "from"
        words = f"{noun} {edge} {self.low:.15g} to {self.high:.15g}"
        return words + (f", or {self.absent}" if self.optional else "")

    def parse(self, key: str, value: object) -> Value:
        """Return the value in its own type; text is read as a command line has it.

        Raises:
            ConfigError: the value is of another type or out of range.
        """
        if self.optional and value in (None, "null", "none", self.absent):
            return None
        if self.kind is str:
            if not isinstance(value, str) or (
                self.choices and value not in self.choices
            ):
                raise self.refusal(key, value)
            return value
        number = self._number(key, value)
        above = number > self.low if self.exclusive else number >= self.low
        if not (above and number <= self.high):  # also refuses NaN
            raise self.refusal(key, value)
        return number + 0.0 if self.kind is float else number  # -0.0 is 0.0

    def _number(self, key: str, value: object) -> float:
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise TypeError
            if self.kind is int and not isinstance(value, float):
                return int(value)
            number = float(value)
            if self.kind is int:  # 1e3 in a JSON file is a whole number
                if not number.is_integer():
                    raise ValueError
                return int(number)
        except (TypeError, ValueError, OverflowError):
            raise self.refusal(key, value) from None
        return number

    def refusal(self, key: str, value: object) -> ConfigError:
        """Return the error for a value that this key does not accept."""
        try:
            plain = isinstance(value, str) and value.isprintable()
            shown = str(value) if plain else json.dumps(value)
        except (TypeError, ValueError):
            shown = f"a value of type {type(value).__name__}"
        return ConfigError(f"{key}: expected {self.allowed}, got {shown}")


def _improvement(text: str) -> Any:
    """Declare what later runs do unless told otherwise, and runs before it did not."""
    return _choice("auto", ("auto", "none"), text, shapes=True, former="none")


def _key(default: Value, kind: type, text: str, **rule: Any) -> Any:
    return dataclasses.field(
        default=default, metadata={"rule": Rule(kind, text, **rule)}
    )


def _whole(default: int | None, low: int, high: int, text: str, **rule: Any) -> Any:
    return _key(default, int, text, low=low, high=high, **rule)


def _real(
    default: float | None, low: float, high: float, text: str, **rule: Any
) -> Any:
    return _key(default, float, text, low=low, high=high, **rule)


def _choice(default: str, choices: tuple[str, ...], text: str, **rule: Any) -> Any:
    return _key(default, str, text, choices=choices, **rule)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All keys of a run, valid by construction."""

    # The model. 32 units learn most in 10 core-seconds, 64 until it pays to grow.
    model_type: str = _choice("rnn", ("rnn", "gru"), "recurrent cell", shapes=True)
    hidden_size: int = _whole(
        32,
        1,
        LARGEST_LAYER,
        "units of each recurrent layer; where it is not given, by --maxSeconds times "
        "--localClients: up to 10 32, up to 150 64, else 64 with a growth of "
        "128@2e7,256@4e8",
        shapes=True,
    )
    growth: str = _key(
        "none",
        str,
        "units that a new run goes on with, and the trials after which it does, of a "
        "step 65536 at most, such as 128@2e7, or several, 128@2e7,256@4e8; none",
    )
    n_layers: int = _whole(1, 1, 16, "recurrent layers", shapes=True)
    vocab_size: int | None = _whole(
        None,
        3,
        65536,
        "tokens of the vocabulary, the unknown and the stop token included; "
        "null: all characters of the text",
        optional=True,
        shapes=True,
    )

    # Perturbations. A sigma of 0.02 and 32 directions a window were the best measured.
    sigma: float = _real(
        0.02,
        0,
        10,
        "standard deviation of the noise added to the weights",
        exclusive=True,
    )
    noise: str = _choice(
        "lowRank",
        ("lowRank", "full"),
        "rank-1 signs, or full for comparison",
        shapes=True,
    )
    whitening: str = _improvement(
        "auto: rank-1 noise follows the covariance of the states, with up to 256 "
        "units (128 without nodes); none: it does not"
    )
    scales: str = _improvement(
        "auto: rank-1 noise and steps are smaller in weights from state to state, on "
        "which a loss depends most; none: they are the same everywhere"
    )
    output_trials: str = _improvement(
        "auto: beside each trial of what comes before the output layer one of that "
        "layer, scored on the clean pass of its window; none: a trial perturbs all"
    )
    nodes: str = _improvement(
        "auto: what rank-1 trials tell is taken as of the sums inside their window, "
        "where it has up to 64 characters; none: as of weights"
    )
    directions_per_window: int = _whole(
        32,
        0,
        1024,
        "trials that share one window and one clean pass; 0: antithetic pairs instead",
        shapes=True,
    )
    batch_size: int = _whole(
        1, 1, 1024, "windows that one trial is scored on", shapes=True
    )
    sequence_length: int = _whole(8, 1, 4096, "characters of a window", shapes=True)
    burn_in: int = _whole(
        16,
        0,
        4096,
        "characters before each window that clean weights read; with full noise none",
        shapes=True,
        former=0,
    )

    # The optimizer. The rate is for 1,024 trials a step and follows their square root;
    # noise grows with the number of weights, so larger models take smaller steps.
    optimizer: str = _choice("adam", ("adam", "sgd"), "update rule", shapes=True)
    learning_rate: float | None = _real(
        None,
        0,
        10,
        "step size of the optimizer at 1,024 trials a step; auto: 0.6 / hiddenSize, "
        "0.38 without whitening, 0.48 without nodes, 0.32 without scales",
        exclusive=True,
        optional=True,
        absent="auto",
    )
    beta1: float = _real(
        0.9, 0, 1 - 2**-24, "Adam's decay rate of the first moment", shapes=True
    )
    beta2: float = _real(
        0.99, 0, 1 - 2**-24, "Adam's decay rate of the second moment", shapes=True
    )
    averaging: str = _improvement(
        "auto: what is validated, exported and writes is a running mean of weights, "
        "those of the last sixth of all steps above all; none: the newest weights"
    )
    decay: str = _key(
        "auto",
        str,
        "how the rate falls: linearly to 2 % over 5000 steps or 3600 seconds; none; "
        "auto: as one over the square root of the trials so far, which needs no end",
    )

    # Steps. Long enough to hide the network's round trip, short enough to learn.
    time_per_step: float | None = _real(
        None,
        0,
        86400,
        "time that clients run trials in one step; auto: as long as overhead and noise "
        "ask for",
        exclusive=True,
        optional=True,
        absent="auto",
        unit="s",
    )
    grace: float | None = _real(
        None,
        0,
        86400,
        "time that a late answer is waited for; null: a quarter of timePerStep, "
        "at least 0.2 s, and more where most answers take longer",
        optional=True,
        unit="s",
    )
    trials_per_step: int | None = _whole(
        None,
        1,
        1 << 24,
        "trials of one step over all clients, in place of timePerStep, for runs that "
        "can be repeated to the bit; null: as many as fit",
        optional=True,
    )
    aggregation: str = _choice(
        "auto",
        ("auto", "seeds", "sums"),
        "seeds: everybody regenerates everybody's noise; sums: each client adds up its "
        "own and the server adds the sums; auto: the cheaper one, step by step",
    )
    step_num: int = _whole(
        0, 0, 1 << 48, "step that the run is at; a new run starts here"
    )

    # Text and files.
    new_tokens_interval: int = _whole(
        100, 1, 1 << 32, "steps between two slices of a text over 4 million characters"
    )
    check_point_time: float = _real(
        30.0, 0, 1e9, "time between checkpoints", exclusive=True, unit="s"
    )
    keep_checkpoints: int = _whole(3, 1, 10000, "newest checkpoints that are kept")

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            value = rule.parse(camel_case(name), getattr(self, name))
            object.__setattr__(self, name, value)
        object.__setattr__(self, "decay", str(Decay.parse(self.decay)))
        object.__setattr__(self, "growth", str(Growth.parse(self.growth)))
        self._check_together()

    def _check_together(self) -> None:
        trials, each = self.trials_per_step, self.trials_per_group
        if trials is None:
            return
        if trials % each:
            twice = "twice " if self.splits else ""
            raise ConfigError(
                f"trialsPerStep: expected a multiple of {twice}directionsPerWindow "
                f"({each}), got {trials}"
            )
        if Decay.parse(self.decay).unit == "seconds":
            raise ConfigError(
                f"decay: expected steps where trialsPerStep is set, got {self.decay}: "
                "seconds cannot be repeated to the bit"
            )

    def grace_seconds(self, run: float) -> float:
        """Return the seconds that a late answer to `run` seconds is waited for."""
        return max(0.2, run / 4) if self.grace is None else self.grace

    @property
    def splits(self) -> bool:
        """Return whether the output layer has trials of its own."""
        one_sided = self.noise == "lowRank" and self.directions_per_window > 0
        return one_sided and self.output_trials == "auto"

    @property
    def before(self) -> int:
        """Return the characters before each window that the clean weights read."""
        return self.burn_in if self.noise == "lowRank" else 0

    @property
    def window_length(self) -> int:
        """Return the characters that a window reads, those before it included."""
        return self.before + self.sequence_length

    @property
    def passes_per_group(self) -> int:
        """Return the directions that share a window: one where pairs are antithetic."""
        return max(1, self.directions_per_window)

    @property
    def trials_per_group(self) -> int:
        """Return the trials that share a window, those of the output layer included."""
        return self.passes_per_group * (2 if self.splits else 1)

    @property
    def scaled(self) -> bool:
        """Return whether noise and steps differ between kinds of weights."""
        return self.scales == "auto" and self.noise == "lowRank"

    @property
    def places(self) -> int:
        """Return how many characters a group reads, those before windows left out."""
        return self.sequence_length * self.batch_size

    @property
    def by_nodes(self) -> bool:
        """Return whether what trials tell is taken as of sums, not of weights."""
        asked = self.nodes == "auto" and self.noise == "lowRank"
        return asked and self.places <= MOST_PLACES

    @property
    def whitens(self) -> bool:
        """Return whether noise follows the covariance of the states."""
        most = MOST_WHITENED if self.by_nodes else MOST_WHITENED_BY_WEIGHTS
        asked = self.whitening == "auto" and self.noise == "lowRank"
        return asked and self.hidden_size <= most

    @property
    def averages(self) -> bool:
        """Return whether a running mean of the weights is kept."""
        return self.averaging == "auto"

    def rate(self, trials: int, step: int, seconds: float) -> float:
        """Return the optimizer's rate of a step with that many accepted trials.

        Noise falls with the square root of the trials, so Adam's steps may grow with
        it (McCandlish et al. 2018); clipped to a factor of 8 both ways.
        """
        decay = Decay.parse(self.decay)
        base = self.learning_rate or self._auto_rate / self.hidden_size
        half = AUTO_TRIALS if self.by_nodes else AUTO_TRIALS_BY_WEIGHTS
        half = half if self.averages else AUTO_TRIALS_NEWEST
        rate = base * decay.factor(step, seconds, trials, half)
        if self.optimizer == "adam":
            most, least = math.sqrt(MOST_COUNTED / 1024), 0.125
            rate *= min(most, max(least, math.sqrt(trials / 1024)))
        return rate

    @property
    def _auto_rate(self) -> float:
        if not self.scaled:
            return AUTO_RATE_UNSCALED
        if not self.by_nodes:
            return AUTO_RATE_BY_WEIGHTS
        return AUTO_RATE if self.whitens else AUTO_RATE_UNSHAPED

    def to_json(self) -> dict[str, Value]:
        """Return all keys in the user's spelling."""
        return {
            camel_case(name): self._written(name, rule) for name, rule in RULES.items()
        }

    def _written(self, name: str, rule: Rule) -> Value:
        value: Value = getattr(self, name)
        return rule.absent if value is None and rule.absent != "null" else value

    def fingerprint(self, text_sha256: str) -> bytes:
        """Return the hash of what shapes the model and what `advance` reads.

        Replicas with equal weights but another fingerprint have other digests. A key
        that changes nothing of what runs did before it is left out, as it was then.
        """
        keys = {}
        for name, rule in RULES.items():
            value = getattr(self, name)
            if rule.shapes and (rule.former is None or rule.former != value):
                keys[camel_case(name)] = value
        return sha256(json.dumps([keys, text_sha256], sort_keys=True).encode())


RULES: dict[str, Rule] = {
    field.name: field.metadata["rule"] for field in dataclasses.fields(Config)
}
KEYS: dict[str, str] = {camel_case(name): name for name in RULES}
FORMER: dict[str, Value] = {
    camel_case(name): rule.former
    for name, rule in RULES.items()
    if rule.former is not None
}


GONE: dict[str, Value] = {"projection": "none"}  # keys, and what is still done of them


def without_gone(keys: Mapping[str, Any], program: str = "") -> dict[str, Any]:
    """Return the keys of a run of an earlier version without those that are no longer.

    Args:
        keys: in the user's spelling.
        program: the version that wrote them, as far as it is known.

    Raises:
        ConfigError: one has a value that no longer means anything.
    """
    for key, value in GONE.items():
        if keys.get(key, value) != value:
            raise ConfigError(
                f"{key}: this version of the program does not do what {keys[key]} did; "
                f"use the version that wrote it ({program or 'not named'})"
            )
    return {key: value for key, value in keys.items() if key not in GONE}


def nearest(word: str, words: list[str]) -> str:
    """Return a hint that names the nearest of the words, or an empty string."""
    folded = {candidate.lower(): candidate for candidate in words}
    close = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=0.5)
    return f"; did you mean {folded[close[0]]}?" if close else ""


def from_json(keys: Mapping[str, object], base: Config | None = None) -> Config:
    """Return a configuration from keys in the user's spelling.

    Args:
        keys: any of `KEYS`; what is left out comes from the base.
        base: default: a configuration of defaults.

    Raises:
        ConfigError: a key is unknown or a value is not accepted.
    """
    changes: dict[str, Any] = parse_keys(keys)
    return dataclasses.replace(base or Config(), **changes)


def parse_keys(keys: Mapping[str, object]) -> dict[str, Value]:
    """Return values by Python name, each checked by itself.

    Raises:
        ConfigError: a key is unknown or a value is not accepted.
    """
    for key in keys:
        if key not in KEYS:
            shown = key if key.isprintable() else json.dumps(key)
            raise ConfigError(f"{shown}: no such key{nearest(key, list(KEYS))}")
    return {
        KEYS[key]: RULES[KEYS[key]].parse(key, value) for key, value in keys.items()
    }


def changed_shape(old: Config, new: Config) -> str | None:
    """Return the first key in which two runs could not share a checkpoint, if any."""
    for name, rule in RULES.items():
        if rule.shapes and getattr(old, name) != getattr(new, name):
            return camel_case(name)
    return None
