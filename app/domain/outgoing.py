"""What we tell others by ourselves: of which kinds, to whom, and in which form.

A recipient is named by its way and a digest of its address: the name may be kept and logged, the
address (which often holds a secret) may not.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Kind = Literal[
    "sync.completed",
    "sync.failed",
    "transaction.cured",
    "retry.requested",
    "alert.opened",
    "alert.resolved",
]
Way = Literal["webhook", "retry", "words"]


@dataclass(frozen=True, slots=True)
class Recipients:
    """Names of those who are told: by webhook of everything, in words of alerts."""

    webhooks: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


NOBODY = Recipients()


def name_of(way: Way, address: str) -> str:
    """The name under which messages to this address are owed; it does not give the address away."""
    return f"{way}:{hashlib.sha256(address.encode()).hexdigest()[:16]}"


def message(kind: Kind, at: datetime, told: Mapping[str, Any]) -> str:
    """The body of a message, as Standard Webhooks advises: type, timestamp, data."""
    return as_json({"type": kind, "timestamp": at, "data": told})


def _said(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()[:-6] + "Z"
    raise TypeError(f"{type(value).__name__} has no place in a message")


_ENCODER = json.JSONEncoder(default=_said, separators=(",", ":"))


def as_json(told: Any) -> str:
    """Compact JSON in plain ASCII, which every database keeps; times as RFC 3339 in UTC."""
    return _ENCODER.encode(told)
