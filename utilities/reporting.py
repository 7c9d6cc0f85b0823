"""What the server tells the person who started it: at the start, meanwhile, at the end.

All figures are natural logarithms (nats) per character; bits are nats / ln 2.
"""

import sys
import time

from utilities.communication import addresses
from utilities.coordinator import Closed
from utilities.data import baselines
from utilities.display import Display, bits, duration
from utilities.generation import Sampling, generate_text
from utilities.model import Floats
from utilities.options import ServerOptions
from utilities.setup import VERSION, Prepared

SAMPLE_LENGTH = 400
SAMPLE_PROMPT = "The "
SAMPLE = Sampling(temperature=0.8, seed=1)
WAIT_SAID_AFTER = 5.0  # seconds without a client before the server says so
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def sample_text(prepared: Prepared, weights: Floats) -> str:
    """Return text from a prompt and seed that stay the same for the whole run."""
    known = set(prepared.run.vocabulary.characters)
    prompt = SAMPLE_PROMPT if set(SAMPLE_PROMPT) <= known else ""
    layout, vocabulary = prepared.setting.layout, prepared.run.vocabulary
    return generate_text(layout, weights, vocabulary, prompt, SAMPLE_LENGTH, SAMPLE)


class Report:
    """Everything that a session of a run says."""

    def __init__(
        self, display: Display, options: ServerOptions, prepared: Prepared, port: int
    ) -> None:
        """Start counting."""
        self._display = display
        self._options = options
        self._prepared = prepared
        self._port = port
        self._began = time.monotonic()
        self._first_step = prepared.state.step
        self._trials = 0
        self._steps = 0
        self._loss: float | None = None
        self._validation: float | None = None
        self._sample = ""
        self._alone_since: float | None = self._began
        self._alone_said = False

    # At the start.

    def greet(self) -> None:
        """Say what is trained, where, what its figures mean, and how to add clients."""
        p, say = self._prepared, self._display.say
        config, run = p.setting.config, p.run
        verb = f"resumes at step {p.state.step}" if p.resumed else "begins"
        say(f"Run {run.number} {verb} in {run.path}  (version {VERSION})")
        say(
            f"Model: {config.model_type}, {config.n_layers} layer(s) of "
            f"{config.hidden_size} units, {p.setting.layout.size:,} weights"
        )
        self._greet_text()
        self._greet_network()

    def _greet_text(self) -> None:
        corpus, say = self._prepared.corpus, self._display.say
        characters = len(corpus.train) + len(corpus.validation)
        line = (
            f"Text: {corpus.name}, {characters:,} characters, vocabulary of "
            f"{corpus.vocabulary.size}"
        )
        if corpus.unknown_share:
            line += f", {corpus.unknown_share:.2%} unknown"
        say(line)
        base = baselines(corpus)
        say("Loss in nats (bits) per character of its last 10 %, to compare with:")
        say(
            f"  guessing evenly {base.uniform:.3f} ({bits(base.uniform):.3f})"
            f", by frequency {base.unigram:.3f} ({bits(base.unigram):.3f})"
            f", by pairs {base.bigram:.3f} ({bits(base.bigram):.3f})"
        )

    def _greet_network(self) -> None:
        say, host = self._display.say, self._options.host
        where = f"{host}:{self._port}"
        if host in LOOPBACK:
            say(f"Listening on {where}, for this machine only. To let others take")
            say("part, in a network that you trust: --host 0.0.0.0 (peers are not")
            say("authenticated yet)")
            return
        say(f"Listening on {where}. Whoever reaches this port can take part: peers")
        say("are not authenticated yet. On the other machines run:")
        for address in self._reachable():
            say(f"  {self._client_line(address)}")

    def _reachable(self) -> list[str]:
        if self._options.host not in ("0.0.0.0", "::", ""):
            return [self._options.host]
        return addresses() or ["<this machine's address>"]

    def _client_line(self, address: str) -> str:
        place = f"[{address}]" if ":" in address else address
        return f"python basicClient.py {place}:{self._port}"

    # Meanwhile.

    def waiting(self, clients: int, now: float) -> None:
        """Say, once, that nobody is there and how to start a client."""
        if clients:
            self._alone_since, self._alone_said = None, False
            return
        if self._alone_since is None:
            self._alone_since = now
        patience = WAIT_SAID_AFTER if self._options.local_clients else 0.0
        if not self._alone_said and now >= self._alone_since + patience:
            self._alone_said = True
            line = self._client_line(self._reachable()[0])
            self._display.say(f"Waiting for clients. Start one with: {line}")

    def step(self, closed: Closed) -> None:
        """Show how things stand after a step."""
        self._steps += 1
        self._trials += closed.trials
        self._loss = closed.loss if closed.loss is not None else self._loss
        seconds = time.monotonic() - self._began
        done = self._steps if self._options.max_steps else seconds
        self._display.status(self._line(closed, seconds), done)

    def _line(self, closed: Closed, seconds: float) -> str:
        parts = [f"step {closed.step}"]
        if closed.loss is not None:
            parts.append(
                f"loss {closed.loss:.3f} nats {bits(closed.loss):.3f} bits/char"
            )
        if self._validation is not None:
            parts.append(f"val {self._validation:.3f}")
        clients = f"{closed.clients} client{'' if closed.clients == 1 else 's'}"
        if closed.late:
            clients += f" ({closed.late} late)"
        return ", ".join(
            [*parts, f"{closed.trials} trials", clients, duration(seconds)]
        )

    def saved(self, step: int, validation: float, sample: str) -> None:
        """Say that a checkpoint was written and how good it is."""
        self._validation, self._sample = validation, sample
        self._display.say(
            f"Checkpoint of step {step}: validation loss {validation:.4f} nats, "
            f"{bits(validation):.4f} bits per character"
        )

    def stopping(self, step: int) -> None:
        """Say that the first signal was understood."""
        self._display.say(
            f"Finishing step {step} and saving. Ctrl-C again: quit now, without saving."
        )

    # At the end.

    def summary(self) -> None:
        """Say what was reached, show a sample, and name what to do next."""
        say, run = self._display.say, self._prepared.run
        seconds = time.monotonic() - self._began
        say()
        say(
            f"Run {run.number}: {self._steps} steps and {self._trials:,} trials "
            f"in {duration(seconds)}, now at step {self._first_step + self._steps}"
        )
        if self._validation is not None:
            say(
                f"Validation loss {self._validation:.4f} nats, "
                f"{bits(self._validation):.4f} bits per character"
            )
        if self._sample:
            say("A sample:")
            for line in self._sample.splitlines():
                say(f"  {line}")
        self._next_steps()

    def _next_steps(self) -> None:
        say, number = self._display.say, self._prepared.run.number
        runs = ""
        if str(self._options.runs) != "trainingRuns":
            runs = f" --runs {self._options.runs}"
        say()
        say(f"The run lies in {self._prepared.run.path}. Next:")
        say(f"  python basicServer.py{runs} --resume {number}")
        say(f"  python -m utilities.inspect{runs} show {number}")
        say(f'  python -m utilities.inspect{runs} generate {number} --prompt "The "')
        sys.stdout.flush()
