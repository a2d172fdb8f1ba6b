"""What an item's error message carries besides its words."""

import re

_CORRELATION = re.compile(
    r"correlation\s?id\"?\s*[:=]\s*\"?"
    r"([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32})\b",
    re.IGNORECASE,
)
LONGEST_SEARCHED = 4000


def correlation_id(message: str | None) -> str | None:
    """Codat's own id of the failure, for its support, as it stands in the message; else None.

    Codat writes "… Correlation ID: <guid>. Message: …" with one or two blanks.
    """
    found = _CORRELATION.search((message or "")[:LONGEST_SEARCHED])
    return found[1].lower() if found else None
