"""Texts, vocabularies and the tokens that a model is trained and judged on.

Owns: the map between characters and tokens, the split into training and validation
text, the token batches that clients get, windows of them, and the losses of models that
only count (the baselines). Does not own: reading files (`textfiles`), which window a
trial gets (`noise` has the random words), the network, or any file that is written.

The idea: a text becomes one long array of small integers as early as possible. The
rest is slicing and indexing of that array, in chunks, so that a text of a hundred
megabytes needs no Python object for each of its characters.
"""

import hashlib
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from utilities.errors import DataError

UNKNOWN = 0  # token of every character that the vocabulary does not hold
STOP = 1  # token between two documents
TOKEN_BATCH_LIMIT = 4_000_000  # characters; sending them once to a client is cheap
LARGEST_VOCABULARY = 1 << 16  # entries: a token must fit two bytes
_SPECIALS = ("<unknown>", "<stop>")  # their names in vocabulary.json, by token
_CHUNK = 1 << 20  # characters handled at once: bounds the memory for wide integers

Tokens = npt.NDArray[np.integer[Any]]
_Words = npt.NDArray[np.uint64]
_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Text:
    """Hold the documents of a text, as read, under a name for people."""

    name: str
    documents: tuple[str, ...]

    @cached_property
    def sha256(self) -> str:
        """Identify the content: hex SHA-256 over the documents, in their order.

        Each goes in as the length of its UTF-8 form in bytes (u64, little-endian)
        and that form, so that no two lists of documents give the same bytes.
        """
        digest = hashlib.sha256()
        for document in self.documents:
            data = document.encode("utf-8")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        return digest.hexdigest()

    @property
    def length(self) -> int:
        """Count the characters, with one STOP between two documents."""
        return max(0, sum(len(document) + 1 for document in self.documents) - 1)


def default_text() -> Text:
    """Return the prose that comes with Python: the topics of its language reference.

    One document per topic, sorted by name; differs between Python versions.

    Raises:
        DataError: This Python was installed without the topics.
    """
    topics: dict[str, str] = {}
    with suppress(ImportError):
        from pydoc_data.topics import topics as installed

        topics = installed
    documents = [normalised(text) for _, text in sorted(topics.items())]
    if not any(documents):
        raise DataError(
            "default text: this Python was installed without the texts of"
            " pydoc_data.topics; name a text of your own with --data PATH"
        )
    return Text("Python reference topics", tuple(filter(None, documents)))


def normalised(text: str) -> str:
    """Drop a byte order mark at the start and make every line end a LF."""
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _code_points(text: str) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
    """Yield (position, code points) of successive chunks of a text."""
    for start in range(0, len(text), _CHUNK):
        # A prompt, unlike a file, may hold lone surrogates; no vocabulary knows them.
        data = text[start : start + _CHUNK].encode("utf-32-le", "surrogatepass")
        yield start, np.frombuffer(data, "<u4")


@dataclass(frozen=True)
class Vocabulary:
    """Map characters to tokens: `characters[token]`, "" for UNKNOWN and STOP.

    Raises:
        DataError: It is not "" twice and up to 65,534 distinct single characters.
    """

    characters: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 2 <= self.size <= LARGEST_VOCABULARY or self.characters[:2] != ("", ""):
            raise DataError(
                f"vocabulary: expected 2 to {LARGEST_VOCABULARY} entries, the first two"
                f" empty, got {self.size}; build it from the text"
            )
        seen = set()
        for token, entry in enumerate(self.characters[2:], start=2):
            if len(entry) != 1 or "\ud800" <= entry <= "\udfff" or entry in seen:
                raise DataError(
                    f"vocabulary: token {token}: expected one character, not used"
                    f" before, got {entry!r}; build the vocabulary from the text"
                )
            seen.add(entry)

    @property
    def size(self) -> int:
        """Count the entries, the two special ones included."""
        return len(self.characters)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Return the type of tokens: the smallest that holds all of them."""
        return np.dtype(np.uint8 if self.size <= 256 else np.uint16)

    @cached_property
    def _table(self) -> Tokens:
        """Tabulate the token of each code point; the last entry serves all above."""
        known = np.array([ord(c) for c in self.characters[2:]], dtype=np.intp)
        table = np.full(known.max(initial=0) + 2, UNKNOWN, dtype=self.dtype)
        table[known] = np.arange(2, self.size, dtype=self.dtype)
        return table

    def encode(self, text: str) -> Tokens:
        """Return the tokens of a text, uint8 or uint16, one per character."""
        tokens: Tokens = np.empty(len(text), dtype=self.dtype)
        for start, points in _code_points(text):
            tokens[start : start + points.size] = self._table.take(points, mode="clip")
        return tokens

    def decode(self, tokens: Tokens | Sequence[int]) -> str:
        """Return tokens as text: UNKNOWN as U+FFFD, STOP as an empty line (two LF)."""
        numbers = np.asarray(tokens, dtype=np.intp)
        known = map(ord, self.characters[2:])
        points = np.array([0xFFFD, ord("\n"), *known], dtype="<u4")
        repeats = np.where(numbers == STOP, 2, 1)
        return np.repeat(points[numbers], repeats).tobytes().decode("utf-32-le")

    def to_json(self) -> dict[str, str]:
        """Return {"0": "<unknown>", "1": "<stop>", "2": character, ...}."""
        named = (*_SPECIALS, *self.characters[2:])
        return {str(token): entry for token, entry in enumerate(named)}

    @classmethod
    def from_json(cls, obj: object) -> "Vocabulary":
        """Rebuild what `to_json` gave, or raise DataError if it cannot be that."""
        found = obj if isinstance(obj, dict) else {}
        entries = [found.get(str(token)) for token in range(len(found))]
        texts = [entry for entry in entries if isinstance(entry, str)]
        if tuple(texts[:2]) != _SPECIALS or len(texts) != len(entries):
            raise DataError(
                'vocabulary: expected {"0": "<unknown>", "1": "<stop>", "2": character'
                f", ...}} without gaps, got {reprlib.repr(obj)}; restore the run's file"
            )
        return cls(("", "", *texts[2:]))


def build_vocabulary(text: Text, size: int | None) -> Vocabulary:
    """Take the most frequent characters, ties in the order of code points.

    At most `size` entries with the two special ones (None: all), never above 65,536.
    """
    assert size is None or size >= 2, f"vocabSize {size}"
    points, _ = counted_characters(text)
    most = min(size or LARGEST_VOCABULARY, LARGEST_VOCABULARY) - 2
    return Vocabulary(("", "", *map(chr, points[:most].tolist())))


def counted_characters(text: Text) -> tuple[_Ints, _Ints]:
    """Return the code points in a text and how often each occurs.

    The most frequent come first, ties in the order of code points.
    """
    counts = np.zeros(0x110000, dtype=np.int64)
    for document in text.documents:
        for _, points in _code_points(document):
            part = np.bincount(points)
            counts[: part.size] += part
    found = np.flatnonzero(counts)
    order = np.argsort(-counts[found], kind="stable")  # found ascends: so do ties
    return found[order], counts[found][order]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Hold a text as tokens, cut into a training and a validation part.

    Both are read-only; `unknown_share` is that of all tokens, `sha256` the `Text`'s.
    """

    name: str
    sha256: str
    vocabulary: Vocabulary
    train: Tokens
    validation: Tokens
    unknown_share: float
    token_batch_limit: int = TOKEN_BATCH_LIMIT

    @property
    def batches(self) -> int:
        """Count the distinct token batches of the training text."""
        return max(1, -(-self.train.size // self.token_batch_limit))

    def token_batch(self, number: int) -> Tokens:
        """Return token batch `number`, a view of the training text.

        All of it if it is within the limit; else a slice of exactly the limit. The
        starts of the `batches` slices are spread evenly from the first to the last
        possible one, so that they cover the text; higher numbers begin anew.
        """
        assert 0 <= number < 1 << 32, f"token batch {number}"
        if self.batches == 1:
            return self.train
        furthest = self.train.size - self.token_batch_limit
        start = number % self.batches * furthest // (self.batches - 1)
        return self.train[start : start + self.token_batch_limit]

    def batch_of_step(self, step: int, new_tokens_interval: int) -> int:
        """Return the number of the token batch that a step uses.

        Always 0 where there is one batch only: clients get it once.
        """
        return 0 if self.batches == 1 else step // new_tokens_interval


def least_characters(window_length: int) -> int:
    """Return the least length of a text that is worth training on, in characters.

    The training part then has at least 10 (window_length + 1) characters, the
    validation part one window, and the text never less than 1000.
    """
    return max(1000, -(-100 * (window_length + 1) // 9))  # the first / 0.9, upwards


def build_corpus(text: Text, vocabulary: Vocabulary, window_length: int) -> Corpus:
    """Encode a text with STOP between documents and split it 90 % to 10 %.

    Raises:
        DataError: The text is shorter than `least_characters(window_length)`.
    """
    least = least_characters(window_length)
    if text.length < least:
        raise DataError(
            f"{text.name}: expected at least {least} characters for windows of "
            f"{window_length} (sequenceLength and burnIn), got {text.length}; name a "
            "longer text with --data"
        )
    tokens: Tokens = np.full(text.length, STOP, dtype=vocabulary.dtype)
    start = 0
    for document in text.documents:
        tokens[start : start + len(document)] = vocabulary.encode(document)
        start += len(document) + 1  # one STOP stays
    tokens.setflags(write=False)
    split = int(tokens.size * 0.9)
    return Corpus(
        name=text.name,
        sha256=text.sha256,
        vocabulary=vocabulary,
        train=tokens[:split],
        validation=tokens[split:],
        unknown_share=float(np.count_nonzero(tokens == UNKNOWN) / tokens.size),
    )


@dataclass(frozen=True)
class Baselines:
    """Hold losses of models that only count, in nats per validation character."""

    uniform: float  # all tokens alike
    unigram: float  # by frequency
    bigram: float  # by the character before


def baselines(corpus: Corpus) -> Baselines:
    """Count on the training text and score on the validation text.

    As for the network, the first validation character is given, not predicted.
    """
    size = corpus.vocabulary.size
    frequencies = log_frequencies(corpus.train, size).astype(np.float64)
    pairs, counts = _count_pairs(corpus.validation, size)
    weights = counts / counts.sum()
    chances = _witten_bell(corpus.train, np.exp(frequencies), pairs)
    return Baselines(
        uniform=float(np.log(size)),
        unigram=float(-(weights @ frequencies[pairs % size])),
        bigram=float(-(weights @ np.log(chances))),
    )


def log_frequencies(tokens: Tokens, size: int) -> npt.NDArray[np.float32]:
    """Return log((count + 1) / sum(count + 1)) of each token (size,), in nats.

    Computed in float64. This is the initial output bias of a model.
    """
    counts = np.ones(size, dtype=np.int64)
    for start in range(0, tokens.size, _CHUNK):
        counts += np.bincount(tokens[start : start + _CHUNK], minlength=size)
    shares = counts / counts.sum()
    return np.asarray(np.log(shares), dtype=np.float32)


def _count_pairs(tokens: Tokens, size: int) -> tuple[_Ints, _Floats]:
    """Return the distinct pairs of neighbours, first * size + second, and how often.

    Sparse: for a large vocabulary a table of all pairs would not fit in memory.
    """
    pairs, counts = np.empty(0, dtype=np.int64), np.empty(0)
    for start in range(0, tokens.size - 1, _CHUNK):
        part = tokens[start : start + _CHUNK + 1].astype(np.int64)
        new, often = np.unique(part[:-1] * size + part[1:], return_counts=True)
        pairs, place = np.unique(np.append(pairs, new), return_inverse=True)
        often = np.append(counts, often)
        counts = np.bincount(place, weights=often).astype(np.float64)
    return pairs, counts


def _witten_bell(train: Tokens, frequencies: _Floats, pairs: _Ints) -> _Floats:
    """Return P(second | first) of each pair, counted on `train`.

    Witten and Bell 1991, method C, interpolated: (c(a,b) + t(a) P(b)) / (c(a) + t(a)),
    where t(a) is how many different tokens follow a; P(b) alone where a is new.
    """
    size = frequencies.size
    known, counts = _count_pairs(train, size)
    followed = np.bincount(known // size, weights=counts, minlength=size)  # c(a)
    followers = np.bincount(known // size, minlength=size)  # t(a)
    place = np.minimum(np.searchsorted(known, pairs), known.size - 1)
    count = np.where(known[place] == pairs, counts[place], 0)  # c(a,b)
    first, chance = pairs // size, frequencies[pairs % size]
    total = (followed + followers)[first]
    mixed = count + followers[first] * chance
    return np.asarray(np.divide(mixed, total, out=chance.copy(), where=total > 0))


def window_starts(raw: _Words, length: int, sequence_length: int) -> _Ints:
    """Return the window starts that random words stand for.

    word mod (length - sequence_length), exact: room for sequence_length + 1 tokens.
    """
    assert length > sequence_length, f"{length} tokens, windows of {sequence_length}"
    starts: _Words = raw % np.uint64(length - sequence_length)
    return starts.astype(np.int64)


def gather_windows(tokens: Tokens, starts: _Ints, sequence_length: int) -> Tokens:
    """Copy windows into a time-major array (sequence_length + 1, n), contiguous.

    Column i is tokens[starts[i] : starts[i] + sequence_length + 1].
    """
    steps = np.arange(sequence_length + 1)[:, np.newaxis]  # (T+1, 1)
    return np.take(tokens, starts + steps)  # (T+1, n)


def validation_rows(tokens: Tokens, row: int = 256) -> list[Tokens]:
    """Cut a text into rows such that each token but the first is a target once.

    Time-major arrays: (row + 1, n) with all full rows, column i from token row * i on,
    and (rest + 1, 1) with what remains; either only if it is needed.
    """
    assert tokens.size >= 2, "one token leaves nothing to predict"
    full, rest = divmod(tokens.size - 1, row)
    rows: list[Tokens] = []
    if full:
        windows = sliding_window_view(tokens, row + 1)[::row]  # (full, row+1), no copy
        rows.append(np.ascontiguousarray(windows.T))
    if rest:
        rows.append(tokens[row * full :, np.newaxis])
    return rows
