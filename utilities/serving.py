"""The server's process: it joins the coordinator to sockets, disk, clock and screen.

One thread decides; replays, validation and checkpoints run on a second one, whose
results come back as events. The line of a step is held while that thread works on the
state that the step began with, so that the validation loss reaches its own line. Sums
that no client sends are computed on a third thread: a step waits for them, and must not
wait for a long replay as well.
"""

import contextlib
import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TypeAlias

from utilities.addresses import dialable, only_here, place
from utilities.admission import gate_of, known_code, tls_of
from utilities.audits import Rescore, Rescored, Resum, Resummed
from utilities.communication import Gate, Hub
from utilities.coordinator import Coordinator
from utilities.credits import CreditLog
from utilities.data import validation_rows
from utilities.disk import Pace
from utilities.display import Display
from utilities.errors import IncompatibleError, ProtocolError, RunError
from utilities.events import Drop, Finish, Joined, Note, Received, Send, Stop, Tick
from utilities.evolution import Totals, nodes_of, total
from utilities.history import Entry, pack
from utilities.ledger import Replay, Replayed, Replayer, Save, Saved
from utilities.lines import listen
from utilities.opening import Limits
from utilities.options import ServerOptions
from utilities.orders import Command, Event, ahead
from utilities.page import Page, machine_names
from utilities.pageserver import PageServer, page_open
from utilities.plots import Level
from utilities.processes import QUIT, local_clients, signals
from utilities.protocol import End
from utilities.reach import addresses
from utilities.recovery import OnStep
from utilities.reporting import Report, sample_text
from utilities.returning import Retrace, Retraced, retrace
from utilities.runlogs import RunLog, StepMetrics
from utilities.runs import Run, RunStore
from utilities.scoring import clean_loss, score
from utilities.sealing import Bundle, bundled
from utilities.selftest import (
    ARITHMETIC_EXPECTED,
    NOISE_EXPECTED,
    arithmetic_test,
    noise_test,
)
from utilities.sessionfiles import SessionLog, client_lines
from utilities.setup import Prepared, prepare
from utilities.stages import COME_BACK, larger, outgrown, worthwhile
from utilities.summing import Compute, Computed
from utilities.tally import NO_AUDITS, Append, Closed
from utilities.wire import encode
from utilities.yardsticks import counted, levels

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
MOST_TEXT_BYTES = 32 << 20  # of another run, read for the page


@dataclass(frozen=True)
class Written:
    """What the second thread found out about a state that it has written."""

    step: int
    seconds: float  # that the run had trained
    digest: bytes
    validation: float
    sample: str | None  # of a full checkpoint


Done: TypeAlias = Replayed | Retraced | Rescored | Resummed | Written | Computed


class Server:
    """One session of a run."""

    def __init__(
        self, options: ServerOptions, prepared: Prepared, hub: Hub, gate: Gate
    ) -> None:
        """Join the parts; nothing is started yet."""
        self._gate = gate
        self._options = options
        self._prepared = prepared
        self._hub = hub
        self._clock = time.monotonic
        now = self._clock()
        self._limits = Limits(
            options.max_steps and prepared.state.step + options.max_steps,
            options.max_seconds and now + options.max_seconds,
        )
        self._coordinator = Coordinator(
            prepared.setting,
            prepared.corpus,
            prepared.run.record.run_seed,
            prepared.state,
            now,
            prepared.seconds,
            self._limits,
            prepared.saved,
            random.SystemRandom(),  # --seed may be known, and foretells no audits
            prepared.entries,
        )
        self._replayer = Replayer(prepared.setting, prepared.corpus)
        self._port = hub.port
        self._journal, self._writing = prepared.journal, Pace()
        self._log = RunLog(prepared.run)
        self._credits = CreditLog(prepared.run)
        for entry in prepared.entries:
            self._credits.add(entry.step, entry.contributions)
        lines = client_lines(
            *(options.listens_on, hub.port, addresses()), open_to_all=gate.code.open
        )
        self._session = SessionLog(
            *(prepared.run.path, lines),
            last_step=self._limits.last_step,
            seconds=options.max_seconds,
        )
        self._rows = validation_rows(prepared.corpus.validation)
        self._jobs: list[Future[Done]] = []
        self._threads = ThreadPoolExecutor(1, "replay")
        self._sums = ThreadPoolExecutor(1, "sums")
        self._held: deque[tuple[Closed, float]] = deque()  # lines to be written, when
        self._validations: dict[int, float] = {}
        self._saving: list[int] = []  # steps whose validation is being computed
        self._replaying = False  # which may lead to a validation, too
        self._last: Written | None = None
        self._audits = NO_AUDITS  # as of the newest step
        self._trouble: RunError | None = None  # with the logs
        self._signals = 0
        self._stopping = self._finished = self._outgrown = self._grows = False
        total = options.max_steps or options.max_seconds
        self._display = Display(quiet=options.quiet, total=total)
        self._report = Report(self._display, options, prepared, hub.port, gate.code)

    # The loop.

    def run(self) -> None:
        """Train until the run ends.

        Raises:
            TrainingError: the run's folder cannot be written any more.
        """
        self._report.greet()
        verb = "goes on" if self._prepared.resumed else "begins"
        begun = f" with {self._prepared.origin}" if self._prepared.origin else ""
        self._tell(f"the run {verb} at step {self._coordinator.step}{begun}", "session")
        address = place(dialable(self._options.listens_on), self._hub.port)
        locals_ = local_clients(self._options.local_clients, address, self._gate.code)
        with contextlib.ExitStack() as stack:
            for threads in (self._threads, self._sums):
                stack.callback(threads.shutdown, cancel_futures=True)
            stack.callback(self._display.close)
            stack.enter_context(signals(self._signal))
            stack.enter_context(locals_)
            stack.callback(self._hub.close)  # before local clients are waited for
            stack.callback(self._journal.close)
            self._display.start()
            try:
                while not (self._finished and not self._jobs):
                    self._turn()
            except RunError as error:  # of the journal, or of a checkpoint
                self._trouble = error
        self._write_last_line()
        self._tell(f"the session ends at step {self._coordinator.step}", "session")
        self._session.end(self._coordinator.step)
        if self._trouble is not None:
            with contextlib.suppress(RunError):  # as far as the logs are no trouble
                self._log.close()
            raise self._trouble
        self._log.close()
        if self.following() is None:
            self._report.summary()

    def following(self) -> ServerOptions | None:
        """Return how a larger model goes on from the end; None: the run has ended."""
        if not self._grows or self._signals:
            return None
        left = self._limits.left(self._coordinator.step, self._clock())
        return larger(self._options, self._prepared.run, self._port, *left)

    def _turn(self) -> None:
        """Take all that has come, then act upon it once.

        Moments are the hub's: what had come by then is in time, and a deadline after it
        has not passed, however long it takes to read what a thousand clients say.
        """
        now = self._clock()
        wakeup = self._coordinator.wakeup(self._hub.moment)
        seconds = POLL_SECONDS if wakeup is None else min(POLL_SECONDS, wakeup - now)
        for event in self._hub.poll(seconds):
            self._take(event)
        for future in [job for job in self._jobs if job.done()]:
            self._jobs.remove(future)
            self._collect(future.result())
        self._consider_stopping()
        self._take(Tick())
        self._carry_out(self._coordinator.go_on(self._clock(), self._hub.moment))
        self._write_lines()
        coordinator = self._coordinator
        self._session.tell(coordinator.step, coordinator.clients, ends=self._stopping)
        if not (self._stopping or self._finished):
            self._report.waiting(len(self._coordinator.clients), now)

    def _consider_stopping(self) -> None:
        """Have the step finished and saved: after a signal, on full logs, to grow."""
        ends = bool(self._signals or self._trouble)
        if self._stopping and not (ends and self._grows):
            return
        step = self._coordinator.step
        left = self._limits.left(step + 1, self._clock())  # after the open step
        self._grows = self._outgrown and not ends and worthwhile(*left)
        if not (ends or self._grows):
            return
        self._stopping = True
        if self._grows:
            self._tell("the model has been trained enough to grow", "session")
            self._report.growing()
        if self._signals:
            self._report.stopping(step)
        self._take(Stop())

    def _signal(self) -> None:
        """Have the run stopped by the loop; on the second signal quit."""
        self._signals += 1
        if self._signals > 1:
            if os.isatty(2):
                os.write(2, b"\n")  # the prompt begins a line of its own
            os._exit(QUIT)  # local clients end with our end of their standard input
        self._hub.ring()

    def _take(self, event: Event) -> None:
        try:
            self._coordinator.take(event, self._hub.moment)
        except ProtocolError as error:
            assert isinstance(event, Received), "only a peer can break the rules"
            self._hub.refuse(event.client, str(error))
        if isinstance(event, Joined):
            address = self._hub.address(event.client)
            self._session.met(event.client, event.hello, address)

    def _tell(self, text: str, kind: str) -> None:
        """Log what is no step to the events of the run."""
        self._session.note(self._coordinator.step, Note(text, kind=kind))

    def _carry_out(self, commands: list[Command]) -> None:
        encoded: dict[int, list[Bundle]] = {}
        for command in ahead(commands) if self._writing.slow else commands:
            self._execute(command, encoded)

    def _execute(self, command: Command, encoded: dict[int, list[Bundle]]) -> None:
        match command:
            case Send():
                for message in command.messages:  # broadcasts are encoded once
                    if id(message) not in encoded:
                        encoded[id(message)] = bundled(encode(message))
                bundles = [b for m in command.messages for b in encoded[id(m)]]
                self._hub.send(command.client, bundles)
            case Drop():
                ends = command.goodbye.end == End.FINISHED.value
                goodbye = COME_BACK if ends and self._grows else command.goodbye
                self._hub.drop(command.client, goodbye)
            case Replay():
                self._replaying = True
                self._start(self._threads, lambda: self._replay(command))
            case Retrace():
                about = self._prepared.setting, self._prepared.corpus
                self._start(self._threads, lambda: retrace(*about, command))
            case Compute():
                self._start(self._sums, lambda: self._compute(command))
            case Rescore():
                self._start(self._threads, lambda: self._rescore(command))
            case Resum():  # no step waits for it
                self._start(self._threads, lambda: self._resum(command))
            case Save():
                self._saving.append(command.state.step)
                self._write_lines()
                self._try_log(self._log.flush)  # lines are not behind checkpoints
                self._start(self._threads, lambda: self._save(command))
            case Append():
                self._append(command)
            case Note():
                self._session.note(self._coordinator.step, command)
                log.log(
                    logging.WARNING if command.warning else logging.INFO, command.text
                )
            case Finish():
                self._finished = True

    # Work off this thread.

    def _start(self, threads: ThreadPoolExecutor, job: Callable[[], Done]) -> None:
        future = threads.submit(job)
        self._jobs.append(future)
        future.add_done_callback(lambda _: self._hub.ring())

    def _replay(self, command: Replay) -> Replayed:
        return Replayed(self._replayer.state(command))

    def _rescore(self, command: Rescore) -> Rescored:
        state, setting = self._replayer.state(command.replay), self._prepared.setting
        tokens = self._prepared.corpus.token_batch(command.token_batch)
        scores = score(setting, state.weights, tokens, command.segment)
        return Rescored(command.case, state.digest(setting.fingerprint), scores)

    def _resum(self, command: Resum) -> Resummed:
        return Resummed(*self._added(command))

    def _compute(self, command: Compute) -> Computed:
        return Computed(command.step, command.half, self._added(command)[0])

    def _added(self, command: Compute | Resum) -> tuple[Totals, bytes]:
        """Return the sum of some trials, and the digest of the state if it matters."""
        setting, nodes, digest = self._prepared.setting, None, b""
        tokens = self._prepared.corpus.token_batch(command.token_batch)
        if setting.by_nodes:
            state = self._replayer.state(command.replay)
            nodes = nodes_of(setting, state.weights, tokens)
            digest = state.digest(setting.fingerprint)
        trials = command.segments, command.rewards
        return total(setting, nodes, tokens, *trials), digest

    def _save(self, command: Save) -> Written:
        prepared, state = self._prepared, command.state
        prepared.run.save_checkpoint(
            state, command.digest, command.seconds, weights_only=not command.checkpoint
        )
        validation = clean_loss(prepared.setting, state.trained, self._rows)
        sample = sample_text(prepared, state.trained) if command.checkpoint else None
        return Written(state.step, command.seconds, command.digest, validation, sample)

    def _collect(self, result: Done) -> None:
        if not isinstance(result, Written):
            if isinstance(result, Replayed):
                self._replaying = False
            self._take(result)
            return
        self._saving.remove(result.step)
        self._validations[result.step] = result.validation
        if result.sample is not None:
            self._try_log(self._log.append_sample, result.step, result.sample)
            self._try_log(self._credits.save, result.step)
            self._report.saved(result.step, result.validation, result.sample)
            text = f"checkpoint: validation loss {result.validation:.4f} nats"
            self._tell(text, "checkpoint")
            self._last = result
            self._journal.rotate()
            self._journal.prune(self._prepared.run.checkpoint_steps()[0])
        self._take(Saved(result.step))

    # Lines of steps.

    def _append(self, command: Append) -> None:
        """Return once a step is durable; RunError: nobody may take it."""
        closed, moment = command.closed, time.time()
        entry = Entry(
            command.update,
            closed.digest,
            moment,
            closed.seconds,
            closed.loss,
            *(closed.clients, closed.late, closed.dropped),
            *(closed.aggregation, closed.contributions),
        )
        began = self._clock()
        self._journal.append(closed.step, closed.digest, pack(entry))
        self._writing.took(self._clock() - began)
        self._audits = closed.audits
        self._held.append((closed, moment))
        self._credits.add(closed.step, closed.contributions)
        had = self._credits.trials, closed.step + 1 - self._prepared.run.first_step
        self._outgrown = outgrown(self._prepared.setting.config, *had)
        self._session.closed(closed, self._coordinator.clients)
        self._report.step(closed)

    def _write_lines(self) -> None:
        """Write the lines of closed steps up to one that may still get a validation."""
        if self._replaying:
            return
        while self._held and self._held[0][0].step not in self._saving:
            closed, moment = self._held.popleft()
            self._try_log(self._log.append_step, self._metrics(closed, moment))
        self._try_log(self._log.flush_in_time)  # there may be no next step for hours

    def _metrics(self, closed: Closed, moment: float) -> StepMetrics:
        return StepMetrics(
            step=closed.step,
            time=moment,
            seconds=closed.seconds,
            loss=closed.loss,
            validation_loss=self._validations.pop(closed.step, None),
            trials=closed.trials,
            clients=closed.clients,
            late=closed.late,
            dropped=closed.dropped,
            digest=closed.digest.hex(),
            aggregation=closed.aggregation,
            time_per_step=closed.time_per_step,
            trial_seconds=closed.trial_seconds,
            update_seconds=closed.update_seconds,
            gradient_quality=closed.gradient_quality,
            **asdict(closed.audits),
        )

    def _write_last_line(self) -> None:
        """Write a line for the last state of the session: no step began with it."""
        last = self._last
        if last is None or last.step not in self._validations:
            return
        nothing = Closed(
            *(last.step, last.seconds, None, 0, 0, 0, 0, last.digest),
            audits=self._audits,
        )
        self._try_log(self._log.append_state, self._metrics(nothing, time.time()))

    def _try_log(self, write: Callable[..., None], *what: object) -> None:
        """Write to the logs; where they take no more, the run is saved and ends."""
        if self._trouble is None:
            try:
                write(*what)
            except RunError as error:
                self._trouble = error


def check_machine() -> None:
    """Prove that this machine computes what all others do.

    Raises:
        IncompatibleError: a replay of the server would differ from its clients' states.
    """
    if (noise_test(), arithmetic_test()) != (NOISE_EXPECTED, ARITHMETIC_EXPECTED):
        raise IncompatibleError(
            "this machine's noise or arithmetic is not what is expected of all: "
            "upgrade numpy (python -m pip install -U numpy), or use another machine"
        )


def _tell_replay(options: ServerOptions) -> OnStep:
    """Return what shows how far the steps of the journal are replayed."""
    display = Display(quiet=options.quiet)

    def tell(done: int, steps: int) -> None:
        if done == 1:
            display.start()
        display.status(f"replaying the journal: {done:,} of {steps:,} steps")
        if done == steps:
            display.close()

    return tell


def serve(options: ServerOptions) -> None:
    """Prepare a run, listen, and train until it ends.

    Raises:
        TrainingError: says in one line what is wrong and what to do.
    """
    check_machine()
    tls, code = tls_of(options), known_code(options)
    listener = listen(options.listens_on, options.port)
    following: ServerOptions | None = options
    prepared: Prepared | None = None
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        page = stack.enter_context(_page(options))
        while following is not None:
            options = following
            prepared = prepare(options, _tell_replay(options), before=prepared)
            with contextlib.closing(prepared.run):
                if page is not None:
                    _show(page, options, prepared)
                name = f"{prepared.run.number} {prepared.run.record.text_sha256}"
                gate = gate_of(options, code, tls, name)
                # A copy, so that who comes between two runs finds somebody who listens.
                size = prepared.setting.layout.size
                hub = Hub(listener.dup(), gate, size, time.monotonic)
                server = Server(options, prepared, hub, gate)
                server.run()
            following = server.following()


def _page(
    options: ServerOptions,
) -> contextlib.AbstractContextManager[PageServer | None]:
    """Return the live page if it is asked for; it has its port before a run begins."""
    if options.page is None:
        return contextlib.nullcontext()
    names = machine_names(options.page_host)
    page = Page(RunStore(options.runs), time.monotonic, names=names)
    return page_open(page, options.page_host, options.page)


def _show(server: PageServer, options: ServerOptions, prepared: Prepared) -> None:
    """Have the page show this run at first, and say where it is."""
    run, corpus = prepared.run, prepared.corpus

    def known(other: Run) -> tuple[Level, ...]:
        if other.number == run.number:
            return counted(corpus)
        return levels(other, MOST_TEXT_BYTES)  # in the memory of a training

    server.page.first, server.page.known = run.number, known
    where = place(dialable(options.page_host), server.port)
    log.info("The page: http://%s/", where)
    if not only_here(options.page_host):
        log.info("Whoever reaches that port can read all runs in %s.", options.runs)
