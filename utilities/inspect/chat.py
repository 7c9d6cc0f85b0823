"""A conversation with a run's model: lines in, text out, settings changed on the way.

Owns: the commands that begin with a colon, what is remembered between two lines. Does
not own the model, or where lines come from and go to.

The idea: a model of characters has no turns. Each line is the beginning of a text that
it goes on with; an empty line lets it go on with what it wrote last.
"""

import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from utilities.config import Rule
from utilities.data import STOP
from utilities.errors import ConfigError, RunError
from utilities.generation import RULES, Beam, Sampling
from utilities.inspect.words import shown
from utilities.trained import Model

REMEMBERED = 1000  # characters of the text so far, which an empty line goes on with
HELP = (
    "A line is the beginning of a text, an empty one goes on with the last.",
    "  :temp X     below 1 likely characters become likelier; 0: always the likeliest",
    "  :topk N     draw from that many likeliest characters; null: from all",
    "  :topp X     draw from the fewest that together have that probability; null",
    "  :beams N    search the likeliest text instead; 0: draw again",
    "  :seed N     draw the same each time; null: another text each time",
    "  :length N   characters of an answer at most",
    "  :step N     take the weights of that step; null: the newest",
    "  :run N      go on with another run's model; null: of the newest run",
    "  :save FILE  write all that was said, lines and answers, to a file",
    "  :settings   show these   :help   show this   :quit   end, as Ctrl-D does",
)
LENGTH = Rule(int, "characters to write at most", low=1, high=1_000_000)
RUN = Rule(int, "run whose model answers", high=1 << 31, optional=True)
STEP = Rule(int, "step whose weights are taken", high=1 << 48, optional=True)
Load: TypeAlias = Callable[[int | None], Model]  # a step's model, or the newest


@dataclass(frozen=True)
class Settings:
    """How answers are written."""

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    beams: int = 0
    seed: int | None = None
    length: int = 200


# Command -> field of the settings and its rule.
_FIELDS: dict[str, tuple[str, Rule]] = {
    "temp": ("temperature", RULES["temperature"]),
    "topk": ("top_k", RULES["topK"]),
    "topp": ("top_p", RULES["topP"]),
    "beams": ("beams", replace(RULES["beams"], low=0)),
    "seed": ("seed", replace(RULES["seed"], optional=True)),
    "length": ("length", LENGTH),
}


class Chat:
    """One conversation."""

    def __init__(
        self,
        load: Load,
        step: int | None,
        open_run: Callable[[int | None], Load],
        write: Callable[[Path, str], None],
    ) -> None:
        """Start.

        Args:
            load: returns the model of a step, or the newest one.
            step: to begin with.
            open_run: returns the same of another run, or of the newest.
            write: replaces a file.

        Raises:
            RunError: there is no such step.
        """
        self._load, self._open_run, self._write = load, open_run, write
        self.model = load(step)
        self.settings = Settings()
        self.ended = False
        self._text = ""  # that an empty line goes on with
        self._said: list[str] = []  # all of it

    def answer(self, line: str) -> Iterator[str]:
        """Return what is said to a line, as it comes; whole lines for commands."""
        if line.startswith(":"):
            return self._obey(line[1:])
        if line:
            self._text = line[-REMEMBERED:]
            self._said += ["\n"] if self._said else []
        self._said.append(line)
        return itertools.chain([line], self._go_on())

    def _go_on(self) -> Iterator[str]:
        for piece in self._pieces(self._text):
            self._text = (self._text + piece)[-REMEMBERED:]
            self._said.append(piece)
            yield piece

    def _pieces(self, prompt: str) -> Iterator[str]:
        s = self.settings
        if s.beams:
            beam = Beam(s.beams, 0.0, STOP)
            return iter([self.model.likeliest(prompt, s.length, beam)[0]])
        seed = secrets.randbits(32) if s.seed is None else s.seed
        sampling = Sampling(s.temperature, s.top_k, s.top_p, seed)
        return self.model.pieces(prompt, s.length, sampling)

    def _obey(self, command: str) -> Iterator[str]:
        name, _, value = command.partition(" ")
        value = value.strip()
        if name in ("q", "quit"):
            self.ended = True
        elif name == "help":
            yield "\n".join(HELP)
        elif name == "settings":
            yield self._described()
        else:
            yield self._set(name, value)

    def _set(self, name: str, value: str) -> str:
        """Change a setting and return what it is now, or what is wrong with it."""
        try:
            if name == "step":
                self.model = self._load(_whole(STEP, ":step", value))
            elif name == "run":
                load = self._open_run(_whole(RUN, ":run", value))
                self.model, self._load = load(None), load
            elif name == "save":
                return self._save(value)
            elif name in _FIELDS:
                field, rule = _FIELDS[name]
                change: dict[str, Any] = {field: rule.parse(f":{name}", value)}
                self.settings = replace(self.settings, **change)
            else:
                return f":{name}: no such command; :help lists them"
        except (ConfigError, RunError) as error:
            return str(error)
        return self._described()

    def _save(self, name: str) -> str:
        if not name:
            return ":save: expected the name of a file"
        text = "".join(self._said)
        self._write(Path(name).expanduser(), text + "\n")
        return f"{len(text):,} characters"

    def _described(self) -> str:
        values = (
            f"{n} {shown(getattr(self.settings, f))}" for n, (f, _) in _FIELDS.items()
        )
        return f"step {self.model.step}, {', '.join(values)}"


def _whole(rule: Rule, name: str, value: str) -> int | None:
    number = rule.parse(name, value)
    assert not isinstance(number, str | float)
    return number
