"""Join codes: the shared secret of a server in a form that people can type. No I/O.

    5M2K9-T4Q0B-…            30 characters: a secret of 128 bits and a check
    5M2K9-T4Q0B-…-…          60 characters: besides, a hash of the server's certificate

Digits and capitals without I, L, O and U (Crockford's base 32); what is read may be in
any case, with or without hyphens and spaces, with O for 0 and I or L for 1. The last
four characters are a check over all others: one typing error in a million passes.
"""

import re
import secrets
from dataclasses import dataclass, field

from utilities.errors import ConfigError
from utilities.misc import sha256

SECRET_BYTES = 16
PIN_BYTES = 19  # 152 bits of a SHA-256: with them the code fills its last group
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CHECK = 4  # characters
GROUP = 5
READ_AS = str.maketrans({"O": "0", "I": "1", "L": "1", "-": "", " ": ""})
LENGTHS = {30: 0, 60: PIN_BYTES}  # characters of a code -> bytes of its pin
_LIKE_A_CODE = re.compile(r"[0-9A-Za-z]{5}(?:[- ]?[0-9A-Za-z]{5}){5,11}")


@dataclass(frozen=True)
class Code:
    """What a server and its clients share."""

    secret: bytes = field(repr=False)
    pin: bytes = b""  # beginning of the SHA-256 of its certificate; empty: no TLS

    def __str__(self) -> str:
        """Return it without what is secret; see `shown`."""
        return "a join code with a certificate" if self.pin else "a join code"

    @property
    def open(self) -> bool:
        """Return whether everybody knows it."""
        return self.secret == OPEN.secret

    def shown(self) -> str:
        """Return it as people type it."""
        number = int.from_bytes(self.secret + self.pin, "big")
        bits = 8 * len(self.secret + self.pin)
        size = -(-bits // 5)
        number <<= 5 * size - bits
        digits = (number >> 5 * (size - 1 - place) & 31 for place in range(size))
        body = "".join(ALPHABET[digit] for digit in digits)
        whole = body + _check(body)
        return "-".join(whole[i : i + GROUP] for i in range(0, len(whole), GROUP))


OPEN = Code(b"open to everyone")  # of a server that asks nobody for a code


def new_code() -> Code:
    """Return a code with a fresh secret."""
    return Code(secrets.token_bytes(SECRET_BYTES))


def read_code(text: str) -> Code:
    """Return the code that somebody has typed.

    Raises:
        ConfigError: it is none; the message does not quote it.
    """
    whole = "".join(text.split()).upper().translate(READ_AS)
    if not set(whole) <= set(ALPHABET):
        raise ConfigError(
            "the join code has a character that no code has: "
            "they consist of digits, letters and hyphens"
        )
    if len(whole) not in LENGTHS:
        raise ConfigError(
            "the join code has a typing error: expected 30 or 60 digits and letters, "
            f"got {len(whole)}"
        )
    body = whole[:-CHECK]
    if _check(body) != whole[-CHECK:]:
        raise ConfigError(
            "the join code has a typing error: its last four characters do not fit "
            "the others"
        )
    pin = LENGTHS[len(whole)]
    number = 0
    for character in body:
        number = number << 5 | ALPHABET.index(character)
    number >>= 5 * len(body) - 8 * (SECRET_BYTES + pin)
    data = number.to_bytes(SECRET_BYTES + pin, "big")
    return Code(data[:SECRET_BYTES], data[SECRET_BYTES:])


def masked(text: str) -> str:
    """Return text without anything in it that looks like a code."""
    return _LIKE_A_CODE.sub("[join-code]", text)


def _check(body: str) -> str:
    number = int.from_bytes(sha256(b"es1 check" + body.encode())[:4], "big")
    return "".join(ALPHABET[number >> 5 * place & 31] for place in range(CHECK))
