"""What an answer that is no success means: final, passing, or wait.

Only the HTTP status counts: the `statusCode` in Codat's error body may differ from it (its own
example of a 402 says 429). Source: Codat docs, "Errors" and "Rate limits".
"""

import email.utils
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from app.codat.times import read_time
from app.codat.webhooks.payloads import text
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable

PASSING = frozenset({408, 409, 425})
LONGEST_TEXT = 500


def refusal(status: int, headers: Mapping[str, str], body: Any, now: datetime) -> CodatError:
    """The error an answer with this status stands for."""
    told = body if isinstance(body, dict) else {}
    correlation_id = text(told.get("correlationId"), 100)
    said = text(told.get("error"), LONGEST_TEXT)
    words = f"Codat answered {status}" + (f": {' '.join(said.split())}" if said else "")
    return _kind(status)(
        words[:LONGEST_TEXT],
        status=status,
        correlation_id=correlation_id,
        retry_after=retry_after(headers, now, limited=status == 429),
    )


def _kind(status: int) -> type[CodatError]:
    if status == 429:
        return CodatRateLimited
    if 400 <= status < 500 and status not in PASSING:
        return CodatRefused
    return CodatUnavailable


def retry_after(headers: Mapping[str, str], now: datetime, *, limited: bool) -> timedelta | None:
    """How long Codat asks us to wait: `Retry-After` as seconds or a date, else, when limited,
    `X-Rate-Limit-Reset`.
    """
    moment = _seconds_or_date(headers.get("retry-after", ""), now)
    if moment is None and limited:
        moment = _date(headers.get("x-rate-limit-reset", ""))
    return max(moment - now, timedelta()) if moment else None


def _seconds_or_date(value: str, now: datetime) -> datetime | None:
    digits = value.strip()
    if digits.isascii() and digits.isdecimal() and len(digits) < 10:
        return now + timedelta(seconds=int(digits))
    return _date(digits)


def _date(value: str) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return read_time(value)
