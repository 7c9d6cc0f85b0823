"""What goes out to clients, in order: a message never comes before what it needs.

Owns which token batches a client holds and what one event makes ready to be sent.
Does not own why something is sent, or how it travels.
"""

from utilities.data import Corpus
from utilities.events import Send
from utilities.evolution import Setting, Update
from utilities.ledger import Ledger
from utilities.peers import Peer
from utilities.protocol import Begin, Message, TokenBatch, Welcome


class Outbox:
    """Messages of one event; those to one client leave together."""

    def __init__(self, setting: Setting, corpus: Corpus) -> None:
        """Begin empty.

        Args:
            setting: of the run.
            corpus: gives the token batches.
        """
        self._setting = setting
        self._corpus = corpus
        self._messages: dict[Peer, list[Message]] = {}

    def batch_of(self, step: int) -> int:
        """Return the number of the token batch that a step uses."""
        interval = self._setting.config.new_tokens_interval
        return self._corpus.batch_of_step(step, interval)

    def welcome(self, peer: Peer, ledger: Ledger) -> None:
        """Send the accepted state and every update since; the client takes part."""
        state = ledger.state
        welcome = Welcome(
            self._setting.config.to_json(),
            self._setting.text_sha256,
            peer.reason,
            state.step,
            state.count,
            ledger.digest,
            *state.arrays,
        )
        self._queue(peer, welcome)
        peer.ready, peer.reason, peer.waited = True, "", True
        peer.batches.clear()
        for update in ledger:
            self.update(peer, update)

    def update(self, peer: Peer, update: Update) -> None:
        """Send an update and the tokens that it needs."""
        self._need(peer, update.token_batch)
        self._queue(peer, update)

    def begin(self, peer: Peer, begin: Begin) -> None:
        """Send a request, the tokens that it needs, and those of the step after it."""
        self._need(peer, begin.token_batch)
        self._queue(peer, begin)
        self._tokens(peer, self.batch_of(begin.step + 1))

    def _need(self, peer: Peer, number: int) -> None:
        """See to it that a client holds a batch; it drops those before it."""
        self._tokens(peer, number)
        peer.batches = {held for held in peer.batches if held >= number}

    def _tokens(self, peer: Peer, number: int) -> None:
        if number not in peer.batches:
            peer.batches.add(number)
            self._queue(peer, TokenBatch(number, self._corpus.token_batch(number)))

    def _queue(self, peer: Peer, message: Message) -> None:
        self._messages.setdefault(peer, []).append(message)

    def forget(self, peer: Peer) -> None:
        """Drop what was meant for a client that has left."""
        self._messages.pop(peer, None)

    def flush(self) -> list[Send]:
        """Return all that is to be sent and begin anew."""
        messages, self._messages = self._messages, {}
        return [Send(peer.id, tuple(parts)) for peer, parts in messages.items()]
