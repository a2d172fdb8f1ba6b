"""Outgoing messages: their kinds, recipients and JSON form.

A recipient is named by its channel and a digest of its address. The name may be stored and logged;
the address, which often contains a secret, may not.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

MessageKind = Literal[
    "sync.completed",
    "sync.failed",
    "transaction.resolved",
    "retry.requested",
    "alert.opened",
    "alert.resolved",
]
Channel = Literal["webhook", "retry", "notification"]
DeliveryState = Literal["waiting", "delivered", "given_up"]


ALERTS: tuple[MessageKind, ...] = ("alert.opened", "alert.resolved")


def subscribers(kind: MessageKind, recipients: Iterable[str]) -> list[str]:
    """Those of these recipients that get messages of a kind: webhooks all, notifications alerts."""
    channels = ("webhook:", "notification:") if kind in ALERTS else ("webhook:",)
    return sorted(name for name in recipients if name.startswith(channels))


def recipient_name(channel: Channel, address: str) -> str:
    """The name of the recipient at this address; does not reveal the address."""
    return f"{channel}:{hashlib.sha256(address.encode()).hexdigest()[:16]}"


def message_body(kind: MessageKind, at: datetime, data: Mapping[str, Any]) -> str:
    """The body of a message in the form of Standard Webhooks: type, timestamp, data."""
    return to_json({"type": kind, "timestamp": at, "data": data})


def to_json(value: Any) -> str:
    """Compact JSON in ASCII, which every database stores; times as RFC 3339 in UTC."""
    return _ENCODER.encode(value)


def _encode_time(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()[:-6] + "Z"
    raise TypeError(f"{type(value).__name__} cannot be part of a message")


_ENCODER = json.JSONEncoder(default=_encode_time, separators=(",", ":"))
