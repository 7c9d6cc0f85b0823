"""What goes out to clients: order, tokens, what leaves together."""

from dataclasses import replace

import numpy as np

from tests.desk import lesson
from utilities.evolution import Segment, Update
from utilities.ledger import Ledger
from utilities.outbox import Outbox
from utilities.peers import Peer
from utilities.protocol import Begin, Shares, TokenBatch, Welcome

START = lesson(batch_limit=100, new_tokens_interval=2)


def update(step: int) -> Update:
    return Update(step, step // 2, 0, 0.0, (), np.zeros(0, np.int8))


def begin(step: int) -> Begin:
    return Begin(step, 1.0, step // 2, False, ())


def outbox() -> Outbox:
    return Outbox(START.setting, START.corpus)


def shown(messages: tuple[object, ...]) -> list[object]:
    """Return the number of each token batch and the kind of each other message."""
    return [
        m.number if isinstance(m, TokenBatch) else type(m).__name__ for m in messages
    ]


def test_tokens_come_before_what_needs_them_and_once() -> None:
    out, peer = outbox(), Peer(1, "ann")

    for step in (0, 1):
        out.begin(peer, begin(step))
        out.update(peer, update(step))
    out.begin(peer, begin(2))

    [send] = out.flush()
    assert send.client == 1
    assert shown(send.messages) == [
        *(0, "Begin", "Update"),
        *("Begin", 1, "Update"),
        "Begin",
    ]


def test_a_message_goes_with_the_tokens_of_the_corpus() -> None:
    out, peer = outbox(), Peer(1, "ann")

    out.update(peer, update(4))

    tokens = out.flush()[0].messages[0]
    assert isinstance(tokens, TokenBatch)
    assert tokens.tokens.tolist() == START.corpus.token_batch(2).tolist()


def test_shares_come_with_the_tokens_that_they_need() -> None:
    out, peer = outbox(), Peer(1, "ann")
    shares = Shares(4, 2, (Segment(1, 0, 1),), np.zeros(4, np.int8))

    out.shares(peer, shares)
    out.shares(peer, shares)

    assert shown(out.flush()[0].messages) == [2, "Shares", "Shares"]
    assert peer.batches == {2}


def test_a_batch_can_be_asked_for() -> None:
    assert outbox().tokens_of(2).tolist() == START.corpus.token_batch(2).tolist()


def test_batches_that_a_client_has_dropped_are_sent_again() -> None:
    out, peer = outbox(), Peer(1, "ann")
    out.begin(peer, begin(1))
    assert peer.batches == {0, 1}

    out.update(peer, update(2))
    assert peer.batches == {1}
    out.flush()
    out.update(peer, update(0))

    assert shown(out.flush()[0].messages) == [0, "Update"]


def test_a_welcome_gives_the_accepted_state_and_everything_since() -> None:
    out, peer = outbox(), Peer(1, "ann", reason="it differs", waited=False)
    peer.batches = {0, 1, 7}
    ledger = Ledger(START.setting, START.state)
    for step in range(3):
        ledger.append(update(step), b"d" * 32)

    out.welcome(peer, ledger)

    messages = out.flush()[0].messages
    assert shown(messages) == ["Welcome", 0, "Update", "Update", 1, "Update"]
    welcome = messages[0]
    assert isinstance(welcome, Welcome)
    assert (welcome.reason, welcome.digest) == ("it differs", ledger.digest)
    assert (peer.ready, peer.waited, peer.reason) == (True, True, "")
    assert peer.batches == {1}


def test_those_who_join_together_get_one_object_that_is_encoded_once() -> None:
    out, ledger = outbox(), Ledger(START.setting, START.state)
    ledger.append(update(0), b"d" * 32)
    joiners = [Peer(n, f"c{n}") for n in range(3)]
    replaced = Peer(9, "eve", reason="it differs")
    for peer in (*joiners, replaced):
        out.welcome(peer, ledger)

    *parts, other = [send.messages for send in out.flush()]

    for several in zip(*parts, strict=True):
        assert len({id(message) for message in several}) == 1
    assert isinstance(other[0], Welcome)
    assert other[0].reason == "it differs"
    assert [id(m) for m in other[1:]] == [id(m) for m in parts[0][1:]]


def test_a_welcome_is_made_anew_for_another_state_and_kept_for_one_moment() -> None:
    out, ledger = outbox(), Ledger(START.setting, START.state)
    out.welcome(Peer(1, "ann"), ledger)
    ledger.accept(replace(START.state, step=4), b"4" * 32)
    out.welcome(Peer(2, "bob"), ledger)
    [[first], [second]] = [send.messages for send in out.flush()]
    out.welcome(Peer(3, "eve"), ledger)
    [[third]] = [send.messages for send in out.flush()]

    welcomes = [m for m in (first, second, third) if isinstance(m, Welcome)]
    assert [w.step for w in welcomes] == [0, 4, 4]
    assert welcomes[1] is not welcomes[2]  # states are not held beyond their time


def test_a_large_text_is_dealt_out_by_step_and_a_small_one_is_one_batch() -> None:
    whole = Outbox(START.setting, replace(START.corpus, token_batch_limit=10**6))

    assert [outbox().batch_of(step) for step in range(5)] == [0, 0, 1, 1, 2]
    assert [whole.batch_of(step) for step in range(5)] == [0] * 5


def test_nothing_is_kept_for_a_client_that_has_left() -> None:
    out, ann, bob = outbox(), Peer(1, "ann"), Peer(2, "bob")
    out.begin(ann, begin(0))
    out.begin(bob, begin(0))

    out.forget(ann)
    out.forget(ann)

    assert [send.client for send in out.flush()] == [2]
    assert out.flush() == []
