"""Verify that a delivery is Codat's.

Codat's webhooks are sent by svix and signed with its scheme. The svix library does the
cryptography; this module decides which headers it gets: one complete family (`webhook-*` or
`svix-*`), each header once, none of the other family. The message id comes from the verified
family, because the library mixes the two families header by header.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from svix.webhooks import Webhook

from app.errors import SettingsError, SignatureError
from app.settings import is_signing_secret

MAX_ID_LENGTH = 255
MAX_SIGNATURE_LENGTH = 4096
MAX_SIGNATURES = 25

_TIMESTAMP = re.compile(r"[0-9]{1,12}\Z")
_HEADERS = {
    family + b"-" + part: (family, index)
    for family in (b"webhook", b"svix")
    for index, part in enumerate((b"id", b"timestamp", b"signature"))
}


class Verified(NamedTuple):
    """The result of a verification; `secret_index` is the matching secret's place in the list."""

    message_id: str
    secret_index: int
    family: str


class Verifier:
    """Verifies deliveries against a list of secrets: one per endpoint, two while rotating."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Raises SettingsError, which never shows the secret, for one that could never match."""
        self._webhooks = []
        for number, secret in enumerate(secrets, 1):
            if not is_signing_secret(secret):
                raise SettingsError(
                    f"CODAT_WEBHOOK_SECRETS: secret {number} is invalid. "
                    "Expected `whsec_…` as shown in the Codat Portal."
                )
            self._webhooks.append(Webhook(secret))

    def __repr__(self) -> str:
        return f"Verifier({len(self._webhooks)} secrets)"

    def verify(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Verified:
        """Verify raw headers (lower-case names) and exactly these bytes.

        Raises SignatureError, and nothing else. Its text is `missing`, `mixed` or `malformed` (the
        headers), `stale` (the timestamp) or `mismatch`.
        """
        family, message_id, timestamp, signature = _select_family(headers)
        if not _is_well_formed(message_id, timestamp, signature):
            raise SignatureError("malformed")
        selected = {
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature,
        }
        reason = "mismatch"
        for index, webhook in enumerate(self._webhooks):
            try:
                webhook.verify(body, selected)
            except Exception as error:  # the library raises many types on hostile input
                if "timestamp" in str(error).lower():
                    reason = "stale"
            else:
                return Verified(message_id, index, family)
        raise SignatureError(reason)


def _select_family(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str, str, str]:
    """The complete family's name, and its id, timestamp and signature."""
    families: dict[bytes, list[bytes | None]] = {}
    for name, value in headers:
        if name in _HEADERS:
            family, index = _HEADERS[name]
            values = families.setdefault(family, [None, None, None])
            # a repeated header makes its family incomplete
            values[index] = value if values[index] is None else b""
    complete = [family for family, values in families.items() if all(values)]
    if len(complete) == 2 and families[b"webhook"] != families[b"svix"]:
        raise SignatureError("mixed")
    if not complete:
        raise SignatureError("mixed" if len(families) == 2 else "missing")
    family = complete[0]
    message_id, timestamp, signature = (
        (value or b"").decode("latin-1") for value in families[family]
    )
    return family.decode(), message_id, timestamp, signature


def _is_well_formed(message_id: str, timestamp: str, signature: str) -> bool:
    return (
        len(message_id) <= MAX_ID_LENGTH
        and message_id.isascii()
        and message_id.isprintable()
        and _TIMESTAMP.match(timestamp) is not None
        and len(signature) <= MAX_SIGNATURE_LENGTH
        and signature.isascii()
        and signature.count(" ") < MAX_SIGNATURES
    )
