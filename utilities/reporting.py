"""What the server tells the person who started it: at the start, meanwhile, at the end.

All figures are natural logarithms (nats) per character; bits are nats / ln 2.
"""

import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from utilities.addresses import ANY, DEFAULT_PORT, only_here, place, public
from utilities.admission import secret_origin
from utilities.data import baselines
from utilities.display import WIDTH, Display, bits, duration
from utilities.generation import Sampling, generate_text
from utilities.hints import firewalls, nobody_came, open_port
from utilities.joincodes import Code
from utilities.misc import RUNS
from utilities.model import Floats
from utilities.options import ServerOptions
from utilities.progress import Growth
from utilities.reach import addresses
from utilities.setup import VERSION, Prepared
from utilities.tally import Closed

SAMPLE_LENGTH = 400
SAMPLE_PROMPT = "The "
SAMPLE = Sampling(temperature=0.8, seed=1)
AS_IT_IS: Any = {"replace_whitespace": False, "drop_whitespace": False}
PROJECT = Path(__file__).resolve().parent.parent
WAIT_SAID_AFTER = 5.0  # seconds without a client before the server says so
REASONS_SAID_AFTER = 60.0  # and before it says what may be the reason


def clock(seconds: float) -> str:
    """Return a length of time as a clock has it: ``3:05`` or ``2:04:07``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def quoted(word: object) -> str:
    """Return a word as a shell of this system takes it."""
    if os.name == "nt":
        return subprocess.list2cmdline([str(word)])
    return shlex.quote(str(word))


def interpreter() -> str:
    """Return what calls this Python from the folder at hand."""
    known = shutil.which("python")
    if known is not None and Path(known).absolute() == Path(sys.executable):
        return "python"
    try:
        near = str(Path(sys.executable).relative_to(Path.cwd()))
    except ValueError:
        near = sys.executable
    return quoted(near)


def sample_text(prepared: Prepared, weights: Floats) -> str:
    """Return text from a prompt and seed that stay the same for the whole run."""
    known = set(prepared.run.vocabulary.characters)
    prompt = SAMPLE_PROMPT if set(SAMPLE_PROMPT) <= known else ""
    layout, vocabulary = prepared.setting.layout, prepared.run.vocabulary
    return generate_text(layout, weights, vocabulary, prompt, SAMPLE_LENGTH, SAMPLE)


class Report:
    """Everything that a session of a run says."""

    def __init__(
        self,
        display: Display,
        options: ServerOptions,
        prepared: Prepared,
        port: int,
        code: Code,
    ) -> None:
        """Start counting."""
        self._code = code
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
        self._saved: float | None = None  # when the newest checkpoint was, if any
        self._alone_since: float | None = self._began
        self._alone_said = self._reasons_said = False
        self._complained = False

    # At the start.

    def greet(self) -> None:
        """Say what is trained, where, what its figures mean, and how to add clients."""
        p, say = self._prepared, self._display.say
        config, run = p.setting.config, p.run
        verb = f"resumes at step {p.state.step}" if p.resumed else "begins"
        say(f"Run {run.number} {verb} in {run.path}  (version {VERSION})")
        if p.origin:
            say(f"It begins with {p.origin}")
        for note in p.notes:
            self._display.warn(note)
        if p.entries:
            say(
                f"Recovered {len(p.entries):,} steps from the journal, behind the "
                f"checkpoint of step {p.saved}"
            )
        layers = f"{config.n_layers} layer{'' if config.n_layers == 1 else 's'}"
        say(
            f"Model: {config.model_type}, {layers} of {config.hidden_size} units, "
            f"{p.setting.layout.size:,} weights"
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
        for line in self._prepared.unknown.lines(begins=not self._prepared.resumed):
            for part in textwrap.wrap(line, WIDTH - 2, break_on_hyphens=False):
                say(f"  {part}")
        base = baselines(corpus)
        say("Loss of guessing its last 10 %, in nats (bits) per character:")
        say(
            f"  evenly {base.uniform:.3f} ({bits(base.uniform):.3f})"
            f", by frequency {base.unigram:.3f} ({bits(base.unigram):.3f})"
            f", by pairs {base.bigram:.3f} ({bits(base.bigram):.3f})"
        )

    def _greet_network(self) -> None:
        say, host = self._display.say, self._options.listens_on
        where = place(host, self._port)
        if self._code.open:
            say("Nobody is asked for a code (--noAuth): whoever reaches this port can")
            say("take part, vote on every step, and read text and weights.")
        else:
            say(f"Join code, {secret_origin(self._options)}:")
            say(f"  {self._code.shown()}")
        if only_here(host):
            say(f"Listening on {where}, for this machine only. To let others take")
            say("part, leave out --host and --noAuth.")
            return
        asked = "run" if self._code.open else "run, and give the code when asked"
        say(f"Listening on {where}. On the other machines {asked}:")
        reachable = self._reachable()
        for address in reachable:
            say(f"  {self._client_line(address)}")
        if not self._code.pin and any(map(public, reachable)):
            say("Traffic is not encrypted: on its way through the internet others can")
            say("read text and weights. See --tlsCert.")

    def _reachable(self) -> list[str]:
        if self._options.listens_on not in ANY:
            return [self._options.listens_on]
        v4_only = self._options.listens_on == "0.0.0.0"
        found = [a for a in addresses() if not (v4_only and ":" in a)]
        return found or ["<this machine's address>"]

    def _client_line(self, address: str) -> str:
        more = " --noAuth" if self._code.open else ""
        return f"python basicClient.py {place(address, self._port)}{more}"

    # Meanwhile.

    def waiting(self, clients: int, now: float) -> None:
        """Say, once, that nobody is there and how to start a client."""
        if clients:
            self._alone_since, self._alone_said = None, False
            self._reasons_said = True
            return
        if self._alone_since is None:
            self._alone_since = now
        patience = WAIT_SAID_AFTER if self._options.local_clients else 0.0
        if not self._alone_said and now >= self._alone_since + patience:
            self._alone_said = True
            line = self._client_line(self._reachable()[0])
            self._display.say(f"Waiting for clients. Start one with: {line}")
        if not self._reasons_said and now >= self._alone_since + REASONS_SAID_AFTER:
            self._reasons_said = True  # once: who has come once can come again
            for line in self._reasons():
                self._display.say(line)

    def _reasons(self) -> list[str]:
        """Return why nobody may have come."""
        line = self._client_line(self._reachable()[0])
        firewall = open_port(sys.platform, self._port, sys.executable, firewalls())
        doctor = line.replace(".py ", ".py --doctor ", 1)
        return nobody_came(self._options.listens_on, line, doctor, firewall)

    def step(self, closed: Closed) -> None:
        """Show how things stand after a step."""
        self._steps += 1
        self._complain(closed)
        self._trials += closed.trials
        self._loss = closed.loss if closed.loss is not None else self._loss
        seconds = time.monotonic() - self._began
        done = self._steps if self._options.max_steps else seconds
        self._display.status(self._line(closed, seconds), done)

    def _complain(self, closed: Closed) -> None:
        """Say, once, that a step has lost all its trials."""
        if closed.dropped and not closed.trials and not self._complained:
            self._complained = True
            self._display.warn(
                f"step {closed.step}: all losses are unusable, so nothing is learned; "
                "a smaller sigma or learningRate may help"
            )

    def _line(self, closed: Closed, seconds: float) -> str:
        """Return the figures of a step; what is least needed goes if they are long."""
        loss, in_bits, validation, odd = "", "", "", ""
        left, age = self._left(seconds), ""
        ends = "" if left is None else f", {clock(left)} left"
        if closed.loss is not None:
            loss = f", loss {closed.loss:.3f}"
            in_bits = f" ({bits(closed.loss):.3f} bits)"
        if self._validation is not None:
            validation = f", val {self._validation:.3f}"
        if closed.late:
            odd = f" ({closed.late} late)"
        if closed.dropped:
            odd += f" ({closed.dropped} dropped)"
        if self._saved is not None:
            age = f", saved {clock(self._began + seconds - self._saved)} ago"
        clients = f"{closed.clients} client{'' if closed.clients == 1 else 's'}"
        before = f"step {closed.step}{loss}"
        after = f"{validation}, {closed.trials} trials, {clients}"
        parts = [before, "", after, "", f", {clock(seconds)}", "", ""]
        room = self._display.room
        for slot, part in ((3, odd), (5, ends), (1, in_bits), (6, age)):
            if len("".join(parts)) + len(part) <= room:
                parts[slot] = part
        return "".join(parts)

    def _left(self, seconds: float) -> float | None:
        """Return seconds until the session ends; None: nobody has said when."""
        options, left = self._options, []
        if options.max_seconds is not None:
            left.append(options.max_seconds - seconds)
        if options.max_steps is not None and self._steps:
            left.append((options.max_steps - self._steps) * seconds / self._steps)
        return max(0.0, min(left)) if left else None

    def saved(self, step: int, validation: float, sample: str) -> None:
        """Say that a checkpoint was written and how good it is."""
        self._validation, self._sample = validation, sample
        self._saved = time.monotonic()
        self._display.say(
            f"Checkpoint of step {step}: validation loss {validation:.4f} nats, "
            f"{bits(validation):.4f} bits/char"
        )

    def stopping(self, step: int) -> None:
        """Say that the first signal was understood."""
        self._display.say(
            f"Finishing step {step} and saving. Ctrl-C again: quit now, without saving."
        )

    def growing(self) -> None:
        """Say why this run ends and another one begins."""
        run = self._prepared.run
        growth = Growth.parse(run.record.config.growth)
        say = self._display.say
        say(f"Run {run.number} has had {growth.trials:,} trials (growth {growth}):")
        say(f"it is saved now and goes on as a new run with {growth.units} units.")

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
                for part in textwrap.wrap(line, WIDTH - 2, **AS_IT_IS) or [""]:
                    say(f"  {part}")
        self._next_steps()

    def _next_steps(self) -> None:
        say, options, here = self._display.say, self._options, Path.cwd() == PROJECT
        python, runs_folder = interpreter(), options.runs
        if not here:
            runs_folder = runs_folder.absolute()
        number = self._prepared.run.number
        runs = "" if runs_folder == RUNS else f" --runs {quoted(runs_folder)}"
        again = f"{runs} --resume {number}"
        if options.host is not None:
            again += f" --host {quoted(options.host)}"
        again += _admission(options, here=here)
        if options.port != DEFAULT_PORT:
            again += f" --port {options.port}"
        if options.local_clients:
            again += f" --localClients {options.local_clients}"
        if options.page is not None:
            again += f" --page {options.page}"
        say()
        place = "" if here else f", in {PROJECT}"
        say(f"The run lies in {self._prepared.run.path}. Next{place}:")
        say(f"  {python} basicServer.py{again}")
        say(f"  {python} -m utilities.inspect{runs} show {number}")
        say(f'  {python} -m utilities.inspect{runs} generate {number} --prompt "The "')


def _admission(options: ServerOptions, *, here: bool) -> str:
    """Return the options of a server that say who may take part.

    Args:
        options: as they were typed.
        here: in the folder that the line is for, so that paths mean the same there.
    """
    files = {
        "tokenFile": options.token_file,
        "tlsCert": options.tls_cert,
        "tlsKey": options.tls_key,
    }
    flags = {"noAuth": options.no_auth, "anybodyMayJoin": options.anybody_may_join}
    words = [f" --{flag}" for flag, given in flags.items() if given]
    words += [
        f" --{flag} {quoted(file if here else file.absolute())}"
        for flag, file in files.items()
        if file
    ]
    return "".join(words)
