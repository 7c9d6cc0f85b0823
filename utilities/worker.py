"""What a client computes: it follows the server's messages and scores trials. No I/O.

A `Worker` holds one replica. `handle` takes a message and keeps the replica in step;
`work` scores the trials of the oldest request and returns what to send. A client that
was slow drains its queue first: every update is applied, and a request whose step has
been closed meanwhile is skipped.
"""

from collections.abc import Callable, Iterator

import numpy as np

from utilities.config import Config, from_json
from utilities.data import Tokens
from utilities.errors import ConfigError, IncompatibleError, ProtocolError
from utilities.evolution import (
    Scores,
    Segment,
    Setting,
    TrainState,
    Update,
    advance,
    mean_loss,
    pieces,
    score,
)
from utilities.misc import Clock, Deadline
from utilities.noise import Floats
from utilities.protocol import Begin, Message, Result, State, TokenBatch, Welcome

OnBlock = Callable[[int], None]  # is told the trials scored so far in this step


class Worker:
    """One replica and the work that is due on it."""

    def __init__(self, clock: Clock, on_block: OnBlock | None = None) -> None:
        """Wait for a Welcome.

        Args:
            clock: monotonic seconds.
            on_block: called after each block of trials.
        """
        self._clock = clock
        self._on_block = on_block or (lambda trials: None)
        self._setting: Setting | None = None
        self._state: TrainState | None = None
        self._digest = b""
        self._tokens: dict[int, Tokens] = {}
        self._pending: list[Begin] = []
        self.update_seconds = 0.0  # of the last update
        self.trials = 0  # scored in all
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
        match message:
            case Welcome():
                self._adopt(message)
            case TokenBatch():
                self._keep_tokens(message)
            case Update():
                self._apply(message)
            case Begin():
                self._request(message)
            case _:
                raise ProtocolError(f"{type(message).__name__}: not for a worker")

    def _adopt(self, welcome: Welcome) -> None:
        setting = agreed_setting(welcome)
        arrays = (welcome.weights, welcome.first, welcome.second)
        state = TrainState(welcome.step, welcome.count, *arrays)
        if state.digest(setting.fingerprint) != welcome.digest:
            raise ProtocolError("welcome: the state does not hash to its digest")
        self._setting, self._state, self._digest = setting, state, welcome.digest
        self._tokens.clear()
        self._pending.clear()

    def _here(self) -> tuple[Setting, TrainState]:
        if self._setting is None or self._state is None:
            raise ProtocolError("expected a welcome first")
        return self._setting, self._state

    def _keep_tokens(self, batch: TokenBatch) -> None:
        config = self._here()[0].config
        if len(batch.tokens) <= config.sequence_length:
            raise ProtocolError(
                f"tokens: expected more than {config.sequence_length}, "
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
        setting, state = self._here()
        if update.step != state.step:
            raise ProtocolError(
                f"update: expected step {state.step}, got {update.step}"
            )
        groups = sum(segment.groups for segment in update.segments)
        trials = groups * setting.config.trials_per_group
        if not trials == update.trials == len(update.rewards):
            raise ProtocolError(
                f"update: {trials} trials in segments, {update.trials} announced, "
                f"{len(update.rewards)} rewards"
            )
        tokens = self._need_tokens(update.token_batch)
        began = self._clock()
        self._state = advance(setting, state, update, tokens)
        self._digest = b""
        self._pending.clear()  # their step has been closed
        self.update_seconds = self._clock() - began

    def _request(self, begin: Begin) -> None:
        _, state = self._here()
        if begin.step != state.step:
            raise ProtocolError(f"begin: expected step {state.step}, got {begin.step}")
        if len(begin.segments) > 1:
            raise ProtocolError(
                f"begin: expected one segment, got {len(begin.segments)}"
            )
        self._need_tokens(begin.token_batch)
        self._pending.append(begin)

    # Scoring.

    @property
    def busy(self) -> bool:
        """Return whether there is work of the present step."""
        return bool(self._pending)

    def work(self) -> list[Message]:
        """Score the next request; return the state if asked for, and a result."""
        assert self.busy, "nothing was requested"
        setting, state = self._here()
        begin = self._pending.pop(0)
        replies: list[Message] = []
        if begin.state_wanted:
            replies.append(State(state.step, state.count, *state.arrays))
        began = self._clock()
        blocks = list(self._blocks(setting, begin))
        seconds = self._clock() - began
        self.loss = mean_loss(setting, [scores for _, scores in blocks])
        result = Result(
            state.step,
            self.digest,
            self.update_seconds,
            seconds,
            joined([segment for segment, _ in blocks]),
            concatenated([scores.losses for _, scores in blocks]),
            concatenated([scores.clean for _, scores in blocks]),
        )
        return [*replies, result]

    def _blocks(
        self, setting: Setting, begin: Begin
    ) -> Iterator[tuple[Segment, Scores]]:
        """Yield blocks of scored trials until the next would not fit, at least one."""
        _, state = self._here()
        tokens = self._need_tokens(begin.token_batch)
        timed = setting.config.trials_per_step is None
        deadline = Deadline.after(begin.time_per_step, self._clock)
        done = 0
        for block in pieces(begin.segments, setting.block_groups):
            before = self._clock()
            yield block, score(setting, state.weights, tokens, block)
            trials = block.groups * setting.config.trials_per_group
            done += trials
            self.trials += trials
            self._on_block(done)
            took, left = self._clock() - before, deadline.left()
            if timed and (took > left or left == 0):
                return


def agreed_setting(welcome: Welcome) -> Setting:
    """Return what the server's run is about.

    Raises:
        IncompatibleError: its configuration is not understood.
        ProtocolError: its state is of another size.
    """
    try:
        config = from_json(welcome.config)
        if config.vocab_size is None:
            raise ConfigError("vocabSize: expected a number, got null")
        setting = Setting(config, welcome.text_sha256)
        size = setting.layout.size
    except ConfigError as error:
        raise IncompatibleError(
            f"the server's configuration is not understood ({error}): "
            "run the same version of the program on both machines"
        ) from error
    if len(welcome.weights) != size:
        raise ProtocolError(
            f"welcome: expected {size} weights, got {len(welcome.weights)}"
        )
    return setting


def joined(blocks: list[Segment]) -> tuple[Segment, ...]:
    """Return consecutive blocks of one segment as the part of it that was done."""
    if not blocks:
        return ()
    groups = sum(block.groups for block in blocks)
    return (Segment(blocks[0].seed, blocks[0].first, groups),)


def concatenated(parts: list[Floats]) -> Floats:
    """Return the parts end to end; nothing gives an empty float32 vector."""
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
