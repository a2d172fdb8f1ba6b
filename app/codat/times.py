"""Codat's times: ISO 8601 in every form its documents show, read leniently.

Codat's `DateTime` may come as UTC, with an offset, or without either; as a date only; with up to
nine digits of a second. One documented example is no valid time at all (23:59:99), so an unreadable
time is no error. Without a zone it is taken for UTC, as `syncUtc` says in its name.
"""

import re
from datetime import UTC, datetime

_MORE_DIGITS = re.compile(r"(\.\d{6})\d+")
_EARLIEST, _LATEST = 1900, 9998


def read_time(text: object) -> datetime | None:
    """The UTC time a text stands for, to the microsecond; None when it stands for none."""
    if not isinstance(text, str) or not 8 <= len(text) <= 40:
        return None
    try:
        moment = datetime.fromisoformat(_MORE_DIGITS.sub(r"\1", text.strip()))
        if not _EARLIEST < moment.year < _LATEST:
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
