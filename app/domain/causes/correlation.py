"""Codat's correlation ID in an error message."""

import json
import re

from app.domain.causes.innermost import CODAT_ENVELOPE

_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE)
MAX_SEARCHED = 64_000


def correlation_id(message: str | None) -> str | None:
    """Return the correlation ID that Codat's own envelope names, in lower case, or None.

    Codat's support asks for this ID. Codat writes "... Correlation ID: <guid>. Message: ...", with
    one or two spaces after each colon, or its error body. An ID in the message of the accounting
    software is the software's own.
    """
    text = (message or "")[:MAX_SEARCHED].lstrip()
    envelope = CODAT_ENVELOPE.match(text)
    found = envelope["id"] if envelope else _id_of_error_body(text)
    return found.lower() if found and _ID.fullmatch(found) else None


def _id_of_error_body(text: str) -> str | None:
    if not text.startswith("{") or '"correlationId"' not in text:
        return None
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return str(body["correlationId"]) if {"correlationId", "statusCode"} <= body.keys() else None
