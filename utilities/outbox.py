"""What goes out to clients, in order: a message never comes before what it needs.

Owns which token batches a client holds and what is ready to be sent at one moment.
Does not own why something is sent, or how it travels.
"""

from collections.abc import Iterable

from utilities.data import Corpus
from utilities.events import Send
from utilities.evolution import Setting, Update
from utilities.ledger import Ledger
from utilities.model import Tokens
from utilities.peers import Peer
from utilities.protocol import (
    Begin,
    Hello,
    Message,
    Recall,
    Resume,
    Shares,
    TokenBatch,
    Welcome,
)


class Outbox:
    """Messages of one moment; those to one client leave together."""

    def __init__(self, setting: Setting, corpus: Corpus) -> None:
        """Begin empty.

        Args:
            setting: of the run.
            corpus: gives the token batches.
        """
        self._setting = setting
        self._corpus = corpus
        self._messages: dict[Peer, list[Message]] = {}
        # What many get is one object, which is brought into bytes once.
        self._welcomes: dict[tuple[bytes, str], Welcome] = {}
        self._batches: dict[int, TokenBatch] = {}

    def batch_of(self, step: int) -> int:
        """Return the number of the token batch that a step uses."""
        interval = self._setting.config.new_tokens_interval
        return self._corpus.batch_of_step(step, interval)

    def welcome(self, peer: Peer, ledger: Ledger) -> None:
        """Send the accepted state and every update since; the client takes part."""
        self._queue(peer, self._welcome(peer.reason, ledger))
        peer.ready, peer.reason, peer.waited = True, "", True
        peer.batches.clear()
        for update in ledger:
            self.update(peer, update)

    def resume(self, peer: Peer, hello: Hello, missed: Iterable[Update]) -> None:
        """Send what a client has missed; it takes part with the state that it holds."""
        assert hello.last_step is not None, "it holds a state"
        config, text = self._setting.config.to_json(), self._setting.text_sha256
        resume = Resume(config, text, hello.last_step)
        self._queue(peer, resume)
        peer.ready, peer.reason, peer.waited = True, "", True
        peer.batches = set(hello.batches)
        for update in missed:
            self.update(peer, update)

    def recall(self, peer: Peer, step: int, digest: bytes) -> None:
        """Ask a client for the updates from a step on."""
        self._queue(peer, Recall(step, digest))

    def _welcome(self, reason: str, ledger: Ledger) -> Welcome:
        """Return the message of a state, of whoever gets it for the same reason."""
        state, key = ledger.state, (ledger.digest, reason)
        if key not in self._welcomes:
            self._welcomes[key] = Welcome(
                self._setting.config.to_json(),
                self._setting.text_sha256,
                reason,
                state.step,
                state.count,
                ledger.digest,
                *state.arrays,
            )
        return self._welcomes[key]

    def update(self, peer: Peer, update: Update) -> None:
        """Send an update and the tokens that it needs."""
        self._need(peer, update.token_batch)
        self._queue(peer, update)

    def shares(self, peer: Peer, shares: Shares) -> None:
        """Send a client its own rewards."""
        self._need(peer, shares.token_batch)
        self._queue(peer, shares)

    def tokens_of(self, number: int) -> Tokens:
        """Return a token batch."""
        return self._corpus.token_batch(number)

    def begin(self, peer: Peer, begin: Begin) -> None:
        """Send a request, the tokens that it needs, and those of the step after it."""
        self._need(peer, begin.token_batch)
        self._queue(peer, begin)
        self._tokens(peer, self.batch_of(begin.step + 1))

    def _need(self, peer: Peer, number: int) -> None:
        """See to it that a client holds a batch; it drops those before it."""
        self._tokens(peer, number)
        if len(peer.batches) > 1:
            peer.batches = {held for held in peer.batches if held >= number}

    def _tokens(self, peer: Peer, number: int) -> None:
        if number not in peer.batches:
            peer.batches.add(number)
            if number not in self._batches:
                self._batches[number] = TokenBatch(number, self.tokens_of(number))
            self._queue(peer, self._batches[number])

    def _queue(self, peer: Peer, message: Message) -> None:
        self._messages.setdefault(peer, []).append(message)

    def forget(self, peer: Peer) -> None:
        """Drop what was meant for a client that has left."""
        self._messages.pop(peer, None)

    def flush(self) -> list[Send]:
        """Return all that is to be sent and begin anew."""
        messages, self._messages = self._messages, {}
        self._welcomes, self._batches = {}, {}
        return [Send(peer.id, tuple(parts)) for peer, parts in messages.items()]
