"""Codat's correlation ID in an error message."""

import re

_PATTERN = re.compile(
    r"correlation\s?id\"?\s*[:=]\s*\"?"
    r"([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32})\b",
    re.IGNORECASE,
)
MAX_SEARCHED = 4000


def correlation_id(message: str | None) -> str | None:
    """Return the correlation ID in the message, in lower case, or None.

    Codat's support asks for this ID. Codat writes "… Correlation ID: <guid>. Message: …", with
    one or two spaces after each colon. Only the first `MAX_SEARCHED` characters are searched.
    """
    match = _PATTERN.search((message or "")[:MAX_SEARCHED])
    return match[1].lower() if match else None
