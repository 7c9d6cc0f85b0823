"""What a client computes: it follows the server's messages and scores trials. No I/O.

A `Worker` holds one replica. `handle` takes a message and keeps the replica in step;
`work` does what the oldest request asks for, by its `Engine`, and returns what to send:
losses of trials, or the sum of its own trials once their rewards are known. A client
that was slow drains its queue first: every update is applied, and a request whose step
has been closed meanwhile is skipped.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from utilities.config import Config, from_json
from utilities.data import Tokens
from utilities.engine import Engine, Halves, OnBlock, OneCore, Scored
from utilities.errors import ConfigError, IncompatibleError, ProtocolError
from utilities.evolution import (
    Segment,
    Setting,
    Totals,
    TrainState,
    Update,
    apply,
    trials_of,
)
from utilities.history import Recent, check_update
from utilities.losses import mean_loss
from utilities.misc import Clock
from utilities.noise import Floats
from utilities.protocol import (
    Begin,
    Message,
    Recall,
    Recalled,
    Result,
    Resume,
    Shares,
    State,
    Sum,
    TokenBatch,
    Welcome,
)
from utilities.scheduling import groups_of
from utilities.sums import cosine, narrowed
from utilities.whitening import Whiteners

RECENT_BYTES = 1 << 24  # of updates that can be handed back


class Worker:
    """One replica and the work that is due on it."""

    def __init__(
        self,
        clock: Clock,
        on_block: OnBlock | None = None,
        engine: Engine | None = None,
    ) -> None:
        """Wait for a Welcome.

        Args:
            clock: monotonic seconds.
            on_block: called with the trials of this step so far, as they are scored.
            engine: computes; default: the one core of this process.
        """
        self._clock = clock
        self._engine = engine or OneCore(clock)
        self._on_block = on_block or (lambda trials: None)
        self._setting: Setting | None = None
        self._state: TrainState | None = None
        self._digest = b""
        self._next: tuple[Update, TrainState] | None = None  # it leads to; not taken
        self._shaped: tuple[int, Whiteners] | None = None  # of a token batch
        self._tokens: dict[int, Tokens] = {}
        self._pending: list[Begin | Shares | Recall] = []
        self._recent = Recent(RECENT_BYTES)
        self.update_seconds = 0.0  # of the last update
        self.gradient_quality: float | None = None  # of the last update, if known
        self.trials = 0  # scored in all
        self._seeds: set[int] = set()  # of own trials of the present step
        self._shared = 0  # own trials that count in it, where the server has said so
        self._counted = self._all = 0  # trials in updates: own ones; everybody's
        self.loss: float | None = None  # of the last work

    @property
    def step(self) -> int | None:
        """Return the step that the replica is at, if there is one."""
        return self._state.step if self._state else None

    @property
    def digest(self) -> bytes:
        """Return the replica's digest, empty if there is none."""
        if self._state is not None and self._setting is not None and not self._digest:
            self._digest = self._state.digest(self._setting.fingerprint)
        return self._digest

    @property
    def share(self) -> float | None:
        """Return own trials in the updates so far, of all in these; None: no updates.

        Trials that two clients were asked for, to compare them, count for both.
        """
        return self._counted / self._all if self._all else None

    @property
    def config(self) -> Config | None:
        """Return the run's configuration, once it is known."""
        return self._setting.config if self._setting else None

    # Following the server.

    def handle(self, message: Message) -> None:
        """Keep the replica in step with one message of the server.

        Raises:
            ProtocolError: the message does not follow from those before.
            IncompatibleError: the server's configuration is not understood.
        """
        if isinstance(message, Welcome | Resume | Recall):
            self._next = None  # of a session that has ended, or of a state that differs
        self.take()
        match message:
            case Welcome():
                self._adopt(message)
            case Resume():
                self._resume(message)
            case Recall():
                self._here()
                self._pending = [message]
            case TokenBatch():
                self._keep_tokens(message)
            case Update():
                self._apply(message)
            case Begin():
                self._request(message)
            case Shares():
                self._share(message)
            case _:
                raise ProtocolError(f"{type(message).__name__}: not for a worker")

    def _adopt(self, welcome: Welcome) -> None:
        setting = agreed_setting(welcome.config, welcome.text_sha256)
        check_size(setting, welcome)
        state = welcome.state
        if state.digest(setting.fingerprint) != welcome.digest:
            raise ProtocolError("welcome: the state does not hash to its digest")
        self._setting, self._state, self._digest = setting, state, welcome.digest
        self._shaped = None
        self._tokens.clear()
        self._pending.clear()
        self._seeds.clear()
        self._recent = Recent(RECENT_BYTES)

    def _resume(self, message: Resume) -> None:
        """Go on from the state that is here; keys may have other values now."""
        _, state = self._here()
        setting = agreed_setting(message.config, message.text_sha256)
        if state.step != message.step:
            raise ProtocolError(
                f"resume: expected a state of step {message.step}, got {state.step}"
            )
        # Hashed anew: should the state have changed since, the next result shows it.
        self._setting, self._digest, self._shaped = setting, b"", None
        self._pending.clear()

    @property
    def batches(self) -> tuple[int, ...]:
        """Return the numbers of the token batches that are here."""
        return tuple(sorted(self._tokens))

    def _here(self) -> tuple[Setting, TrainState]:
        if self._setting is None or self._state is None:
            raise ProtocolError("expected a welcome first")
        return self._setting, self._state

    def _keep_tokens(self, batch: TokenBatch) -> None:
        config = self._here()[0].config
        if len(batch.tokens) <= config.window_length:
            raise ProtocolError(
                f"tokens: expected more than {config.window_length}, "
                f"got {len(batch.tokens)}"
            )
        if int(batch.tokens.max()) >= (config.vocab_size or 0):
            raise ProtocolError(
                f"tokens: expected numbers below {config.vocab_size}, "
                f"got {int(batch.tokens.max())}"
            )
        self._tokens[batch.number] = batch.tokens

    def _need_tokens(self, number: int) -> Tokens:
        """Return a token batch and drop those before it: numbers never go back."""
        if number not in self._tokens:
            raise ProtocolError(f"token batch {number} was never sent")
        self._tokens = {n: batch for n, batch in self._tokens.items() if n >= number}
        return self._tokens[number]

    def _apply(self, update: Update) -> None:
        """Compute what an update leads to; the message after it makes that the state.

        Until then the server may not have it on its disk.
        """
        setting, state = self._here()
        if update.step != state.step:
            raise ProtocolError(
                f"update: expected step {state.step}, got {update.step}"
            )
        check_update(setting, update)
        self._need_tokens(update.token_batch)
        began = self._clock()
        self.gradient_quality, sums = None, update.total
        if update.trials and not update.summed:
            sums = self._regenerated(update)
        shaped = self._whiteners(update.token_batch) if update.trials else ()
        self._next = update, apply(setting, state, update, sums, shaped)
        self._pending.clear()  # their step has been closed
        self.update_seconds = self._clock() - began

    def take(self) -> None:
        """Make the state of what the last update leads to: it was followed."""
        if self._next is None:
            return
        setting, _ = self._here()
        update, state = self._next
        self._next = None
        self._count(setting, update)
        self._recent.append(update, self.digest)
        self._recent.forget(update.step)
        self._state, self._digest, self._shaped = state, b"", None

    def _count(self, setting: Setting, update: Update) -> None:
        """Count own trials in an update: by seeds, or as told before it was summed."""
        own = tuple(s for s in update.segments if s.seed in self._seeds)
        self._counted += self._shared if update.summed else trials_of(setting, own)
        self._all += update.trials
        self._seeds.clear()
        self._shared = 0

    def _regenerated(self, update: Update) -> Totals:
        """Return the total of an update from everybody's seeds and rewards."""
        one, other = self._halves(update)
        self.gradient_quality = cosine(one, other)
        return np.asarray(one + other)

    def _halves(self, trials: Update | Shares) -> Halves:
        """Return the sums of both halves of some trials of the present step."""
        setting, state = self._here()
        return self._engine.halves(
            setting,
            state.weights,
            self._need_tokens(trials.token_batch),
            self._whiteners(trials.token_batch),
            trials.segments,
            trials.rewards,
        )

    def _whiteners(self, number: int) -> Whiteners:
        """Return what shapes the step's noise, computed once for a state and tokens."""
        setting, state = self._here()
        if self._shaped is None or self._shaped[0] != number:
            tokens = self._need_tokens(number)
            self._shaped = (number, setting.whiteners(state.weights, tokens))
        return self._shaped[1]

    def _request(self, begin: Begin) -> None:
        _, state = self._here()
        if begin.step != state.step:
            raise ProtocolError(f"begin: expected step {state.step}, got {begin.step}")
        seeds = {segment.seed for segment in begin.segments}
        if len(seeds) < len(begin.segments):
            raise ProtocolError(
                f"begin: expected segments of {len(begin.segments)} seeds, "
                f"got {len(seeds)}"
            )
        self._need_tokens(begin.token_batch)
        self._pending.append(begin)

    def _share(self, shares: Shares) -> None:
        setting, state = self._here()
        if shares.step != state.step:
            raise ProtocolError(
                f"shares: expected step {state.step}, got {shares.step}"
            )
        trials = trials_of(setting, shares.segments)
        if not trials or trials != len(shares.rewards):
            raise ProtocolError(
                f"shares: {trials} trials in segments, {len(shares.rewards)} rewards"
            )
        self._need_tokens(shares.token_batch)
        self._pending = [shares]  # what is left of the step counts no more
        self._shared = trials

    # Scoring and adding up.

    @property
    def busy(self) -> bool:
        """Return whether there is work of the present step."""
        return bool(self._pending)

    def work(self) -> list[Message]:
        """Do what is asked for next; return what to send."""
        assert self.busy, "nothing was requested"
        request = self._pending.pop(0)
        if isinstance(request, Shares):
            return [self._sum(request)]
        if isinstance(request, Recall):
            known = self._recent.since(request.step, request.digest)
            return [Recalled.of(update) for update in known or ()]
        return self._answer(self._together(request))

    def _sum(self, shares: Shares) -> Sum:
        """Add up this client's own trials."""
        began = self._clock()
        one, other = self._halves(shares)
        total = narrowed(np.asarray(one + other))
        return Sum(shares.step, self._clock() - began, total)

    def _together(self, begin: Begin) -> list[Begin]:
        """Return a request and those after it that keep all processes busy.

        A request for some time does so by itself; one for a block is for one of them.
        A block that is smaller than others comes last, since what follows it would not
        be scored in a batch of its own.
        """
        setting, _ = self._here()
        requests, timed = [begin], setting.config.trials_per_step is None
        while not timed and len(requests) < self._engine.size and self._pending:
            following, groups = self._pending[0], groups_of(requests[-1].segments)
            whole = groups > 0 and groups % setting.block_groups == 0
            if not (whole and isinstance(following, Begin) and following.segments):
                break
            requests.append(following)
            del self._pending[0]
        return requests

    def _answer(self, requests: list[Begin]) -> list[Message]:
        """Score trials; return the state if asked for, and a result of each request."""
        setting, state = self._here()
        replies: list[Message] = []
        if any(begin.state_wanted for begin in requests):
            replies.append(State(state.step, state.count, *state.arrays))
        if any(begin.segments for begin in requests):
            self._prepare(requests[0].token_batch)
        began = self._clock()
        blocks = self._score(setting, requests)
        seconds = self._clock() - began
        self._seeds.update(block.seed for block, _ in blocks)
        self.loss = mean_loss(setting, [scores for _, scores in blocks])
        for mine in parted(blocks, requests):
            replies.append(self._result(mine, seconds))
            seconds = 0.0  # the first answer tells the time of all that leave with it
        return replies

    def _result(self, blocks: Scored, seconds: float) -> Result:
        _, state = self._here()
        return Result(
            state.step,
            self.digest,
            self.update_seconds,
            seconds,
            self.gradient_quality,
            joined([segment for segment, _ in blocks]),
            concatenated([scores.losses for _, scores in blocks]),
            concatenated([scores.clean for _, scores in blocks]),
        )

    def _prepare(self, number: int) -> None:
        """Find what shapes the noise: it is part of the update, not of the trials."""
        if self._shaped is None:
            began = self._clock()
            self._whiteners(number)
            self.update_seconds += self._clock() - began

    def _score(self, setting: Setting, requests: list[Begin]) -> Scored:
        """Score as much of a request as fits its time, or all of several."""
        _, state = self._here()
        begin = requests[0]
        segments = tuple(s for request in requests for s in request.segments)
        tokens = self._need_tokens(begin.token_batch)
        timed = setting.config.trials_per_step is None
        before = self.trials

        def on_block(done: int) -> None:
            self.trials = before + done
            self._on_block(done)

        seconds = begin.time_per_step if timed else None
        blocks = self._engine.score(
            *(setting, state.weights, tokens, self._whiteners(begin.token_batch)),
            *(segments, seconds, on_block),
        )
        done = tuple(block for block, _ in blocks)
        self.trials = before + trials_of(setting, done)  # told of or not
        return blocks


def agreed_setting(keys: Mapping[str, Any], text_sha256: str) -> Setting:
    """Return what the server's run is about.

    Raises:
        IncompatibleError: its configuration is not understood.
    """
    try:
        config = from_json(keys)
        if config.vocab_size is None:
            raise ConfigError("vocabSize: expected a number, got null")
        setting = Setting(config, text_sha256)
        assert setting.layout.size, "a model has weights"
    except ConfigError as error:
        raise IncompatibleError(
            f"the server's configuration is not understood ({error}): "
            "run the same version of the program on both machines"
        ) from error
    return setting


def check_size(setting: Setting, welcome: Welcome) -> None:
    """Raise ProtocolError unless a state has the weights of the model."""
    if not welcome.state.fits(setting):
        size, state = setting.layout.size, welcome.state
        mean = "and their mean" if setting.config.averages else "without a mean"
        raise ProtocolError(
            f"welcome: expected {size} weights {mean}, got {len(state.weights)} and "
            f"{len(state.average)}"
        )


def parted(blocks: Scored, requests: Sequence[Begin]) -> Iterator[Scored]:
    """Yield the blocks of each request; of several requests all are scored."""
    if len(requests) == 1:
        yield blocks
        return
    rest = iter(blocks)
    for begin in requests:
        mine, due = Scored(), groups_of(begin.segments)
        while due:
            mine.append(next(rest))
            due -= mine[-1][0].groups
        yield mine


def joined(blocks: list[Segment]) -> tuple[Segment, ...]:
    """Return consecutive blocks as the parts of their segments that were done."""
    parts: list[Segment] = []
    for block in blocks:
        last = parts[-1] if parts else None
        if last is not None and last.seed == block.seed:
            parts[-1] = replace(last, groups=last.groups + block.groups)
        else:
            parts.append(block)
    return tuple(parts)


def concatenated(parts: list[Floats]) -> Floats:
    """Return the parts end to end; nothing gives an empty float32 vector."""
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
