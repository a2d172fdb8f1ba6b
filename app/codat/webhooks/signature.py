"""Is it Codat's? The proof that a delivery is authentic.

Codat's webhooks are sent by svix and signed by its scheme. The svix library does the cryptography;
this room decides what it is handed: one family of headers (`webhook-*` or `svix-*`), complete, each
header once, and nothing of the other. The message id is taken from the family that was verified,
because the library, left to itself, mixes the two header by header.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from svix.webhooks import Webhook

from app.errors import SettingsError, SignatureError

LONGEST_ID = 255
LONGEST_SIGNATURE = 4096
MOST_SIGNATURES = 25

_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]+={0,2}\Z")
_TIMESTAMP = re.compile(r"[0-9]{1,12}\Z")
_PARTS = (b"id", b"timestamp", b"signature")
_NAMES = {
    family + b"-" + part: (family, number)
    for family in (b"webhook", b"svix")
    for number, part in enumerate(_PARTS)
}
_STALE = "timestamp"
REFUSALS = ("missing", "mixed", "malformed", "stale", "mismatch")


@dataclass(frozen=True, slots=True)
class Verified:
    """A proof: whose message, which secret matched (by its place in the list), which headers."""

    message_id: str
    secret_index: int
    family: str


class Verifier:
    """Checks deliveries against a list of secrets, as there are while one is rotated."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Raises SettingsError for a secret that could never match; never shows it."""
        self._webhooks = [_webhook(secret, place) for place, secret in enumerate(secrets, 1)]

    def __repr__(self) -> str:
        return f"Verifier({len(self._webhooks)} secrets)"

    def verify(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Verified:
        """The proof for these raw headers (lower-case names) and exactly these bytes.

        Raises SignatureError, and nothing else, with one of REFUSALS.
        """
        family, values = _one_family(headers)
        message_id = _checked(values)
        handed = {f"webhook-{part}": value for part, value in zip(_WORDS, values, strict=True)}
        stale = False
        for index, webhook in enumerate(self._webhooks):
            try:
                webhook.verify(body, handed)
            except Exception as error:  # the library raises many kinds on hostile input
                stale = stale or _STALE in str(error).lower()
                continue
            return Verified(message_id, index, family)
        raise SignatureError("stale" if stale else "mismatch")


_WORDS = ("id", "timestamp", "signature")


def _webhook(secret: str, place: int) -> Webhook:
    problem = SettingsError(
        f"CODAT_WEBHOOK_SECRETS: secret number {place} is not whsec_ and the base64 of 24 to 64 "
        "bytes, as the Codat Portal shows it"
    )
    if not _SECRET.match(secret):
        raise problem
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        raise problem from None
    if not 24 <= size <= 64:
        raise problem
    return Webhook(secret)


def _one_family(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, list[str]]:
    """The complete family's name and its id, timestamp and signature."""
    found: dict[bytes, list[bytes | None]] = {}
    for name, value in headers:
        known = _NAMES.get(name)
        if known is None:
            continue
        family, number = known
        values = found.setdefault(family, [None, None, None])
        # a header that comes twice makes its family worthless
        values[number] = value if values[number] is None else b""
    complete = [family for family, values in found.items() if all(values)]
    if len(complete) == 2 and found[b"webhook"] != found[b"svix"]:
        raise SignatureError("mixed")
    if not complete:
        raise SignatureError("mixed" if len(found) == 2 else "missing")
    family = complete[0]
    return family.decode(), [(value or b"").decode("latin-1") for value in found[family]]


def _checked(values: Sequence[str]) -> str:
    message_id, timestamp, signature = values
    fine = (
        len(message_id) <= LONGEST_ID
        and message_id.isascii()
        and message_id.isprintable()
        and _TIMESTAMP.match(timestamp)
        and len(signature) <= LONGEST_SIGNATURE
        and signature.isascii()
        and signature.count(" ") < MOST_SIGNATURES
    )
    if not fine:
        raise SignatureError("malformed")
    return message_id
