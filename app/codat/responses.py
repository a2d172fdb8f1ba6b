"""Parse the answers of Codat's API into values and errors, leniently.

A member that is absent, null or cannot be read becomes None, and a row that cannot be read is left
out. Only an answer of a different shape, or without the one member that makes it an answer, raises
CodatUnavailable, because the next one may be right.
"""

import email.utils
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from app.codat.webhooks.payloads import (
    LONGEST_NAME,
    identifier,
    read_connection,
    read_status,
    read_time,
    read_transaction,
    text,
)
from app.domain.models import Company, SyncStatus, Transaction
from app.domain.webhook_loss import Endpoint
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable

TRANSIENT_4XX = frozenset({408, 409, 425})
MAX_ERROR = 500
MAX_URL = 2000


@dataclass(frozen=True, slots=True)
class Page:
    """One page of any list: its rows, a full page's size, Codat's count of all rows."""

    rows: Sequence[Any]
    size: int
    total: int | None

    def is_last(self, number: int) -> bool:
        """True when no page follows this one, the `number`th from 1.

        Without Codat's count the list ends at a page that is not full.
        """
        if self.total is None or not self.rows:
            return len(self.rows) < self.size
        return number * self.size >= self.total

    def has_page(self, number: int) -> bool:
        """True when Codat's count implies a page of this number; never after a short page."""
        is_full = len(self.rows) >= self.size
        return is_full and self.total is not None and (number - 1) * self.size < self.total

    def contradicts(self, previous: "Page") -> bool:
        """True when this page repeats the previous one, or both are short."""
        return self.rows == previous.rows or max(len(self.rows), len(previous.rows)) < self.size


@dataclass(frozen=True, slots=True)
class TransactionList:
    """A sync's transaction list as read; `expected` is Codat's own count of rows.

    `steady` is False when the list changed while its pages were read, so that rows may be missing
    or doubled even where their number is right. `doubtful` means that the only sign of that is a
    row on two pages, which may be genuine, since rows do repeat.
    """

    transactions: tuple[Transaction, ...]
    expected: int | None
    steady: bool = True
    doubtful: bool = False


def combine_pages(pages: Sequence[Page]) -> TransactionList:
    """Join pages of transactions, and detect whether the list changed while they were read.

    It did when Codat's count changed, when a page before the last is short, when a page came
    twice, or when one row is on two pages.
    """
    short = any(len(page.rows) < page.size for page in pages[:-1])
    repeated = any(page.rows and page.rows == following.rows for page, following in pairwise(pages))
    changed = short or repeated or len({page.total for page in pages}) > 1
    rows = tuple(row for page in pages for row in page.rows)
    overlaps = sum(len(set(page.rows)) for page in pages) > len(set(rows))
    expected = pages[-1].total
    doubtful = overlaps and not changed and expected in (None, len(rows))
    return TransactionList(rows, expected, steady=not changed and not overlaps, doubtful=doubtful)


def resolve_doubt(first: TransactionList, second: TransactionList) -> TransactionList:
    """The list to use after a doubtful one was read again in pages of another size.

    Had a page shifted, different rows would be missing the second time. Two equal lists are right.
    """
    if second.steady:
        return second
    is_confirmed = second.doubtful and second.transactions == first.transactions
    return replace(first, steady=is_confirmed, doubtful=False)


def require_object(answer: object, name: str) -> dict[str, Any]:
    """The answer, if it is a JSON object; `name` says what it should be."""
    if not isinstance(answer, dict):
        raise CodatUnavailable(f"Codat's answer is not a {name}")
    return answer


def require_array(answer: object, name: str) -> list[Any]:
    """The answer, if it is a JSON array; `name` says what it should be."""
    if not isinstance(answer, list):
        raise CodatUnavailable(f"Codat's answer is not a {name}")
    return answer


def read_page(answer: object, page_size: int) -> Page:
    """A page of results; its size is the requested one, or less where Codat says so.

    Codat's schema does not require `results`: without it, a count of 0 is an empty page.
    """
    fields = require_object(answer, "page of results")
    results, total = fields.get("results"), _row_count(fields.get("totalResults"))
    rows = [] if results is None and total == 0 else require_array(results, "page of results")
    size = _row_count(fields.get("pageSize")) or page_size
    return Page(rows, min(size, page_size), total)


def read_answered_status(answer: object, company_id: str, sync_id: str) -> SyncStatus:
    """The status of this sync. Raises CodatUnavailable for another one's, and without a code.

    Codat's schema requires neither ids nor code. An absent id contradicts nothing; without a code
    the answer says nothing about the sync and must not replace what is known.
    """
    status = read_status(require_object(answer, "sync status"))
    if not (_is_same(status.sync_id, sync_id) and _is_same(status.company_id, company_id)):
        raise CodatUnavailable("Codat answered with the status of another sync")
    if status.status_code is None:
        raise CodatUnavailable("Codat's answer has no status code")
    return status


def read_listed_statuses(rows: Iterable[object], company_id: str) -> list[SyncStatus]:
    """The rows of a company's list of syncs; none of another company, and none without an id."""
    statuses = map(read_status, rows)
    return [s for s in statuses if s.sync_id and _is_same(s.company_id, company_id)]


def _is_same(answered: str | None, requested: str) -> bool:
    """True unless another id was answered; UUIDs may come in capitals."""
    return answered is None or answered.casefold() == requested.casefold()


def _row_count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def read_transactions(rows: object) -> tuple[Transaction, ...]:
    """Rows of transactions, in Codat's order."""
    return tuple(filter(None, map(read_transaction, require_array(rows, "list of transactions"))))


def read_company(row: object) -> Company | None:
    """One row of the companies list; None without an id."""
    fields = row if isinstance(row, dict) else {}
    company_id = identifier(fields.get("id"))
    if company_id is None:
        return None
    name, rows = text(fields.get("name"), LONGEST_NAME), fields.get("dataConnections")
    if not isinstance(rows, list):
        return Company(company_id, name)
    connections = [row for row in rows if isinstance(row, dict)]
    return Company(company_id, name, tuple(map(read_connection, connections)))


def read_endpoints(answer: object) -> list[Endpoint]:
    """Our webhook endpoints, as the list of webhook consumers has them."""
    listed = require_object(answer, "list of webhooks").get("results")
    return [
        Endpoint(
            url=text(row.get("url"), MAX_URL) or "",
            disabled=row.get("disabled") is True,
            event_types=tuple(t for t in _list(row.get("eventTypes")) if isinstance(t, str)),
        )
        for row in require_array(listed, "list of webhooks")
        if isinstance(row, dict)
    ]


def error_for(status: int, headers: Mapping[str, str], body: object, now: datetime) -> CodatError:
    """The error for an unsuccessful answer: final, transient, or rate limited.

    `body` is its decoded JSON, or None. Only the HTTP status counts: the `statusCode` in Codat's
    error body may differ from it (its own example of a 402 says 429). Source: Codat docs, "Errors"
    and "Rate limits".
    """
    fields = body if isinstance(body, dict) else {}
    detail = text(fields.get("error"), MAX_ERROR)
    message = f"Codat answered {status}" + (f": {' '.join(detail.split())}" if detail else "")
    error_type: type[CodatError] = CodatUnavailable
    if status == 429:
        error_type = CodatRateLimited
    elif 400 <= status < 500 and status not in TRANSIENT_4XX:
        error_type = CodatRefused
    return error_type(
        message[:MAX_ERROR],
        status=status,
        correlation_id=text(fields.get("correlationId"), 100),
        retry_after=_retry_after(status, headers, now),
    )


def _retry_after(status: int, headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """How long to wait: `Retry-After` in seconds or as a date.

    After a 429, `X-Rate-Limit-Reset` is used where that is missing or unreadable.
    """
    value = headers.get("retry-after", "").strip()
    seconds = read_number(value)
    if seconds is not None:
        return timedelta(seconds=seconds)
    moment = read_date(value)
    if moment is None and status == 429:
        moment = read_date(headers.get("x-rate-limit-reset", ""))
    return max(moment - now, timedelta()) if moment else None


def read_number(value: str) -> int | None:
    """The whole number that a header has; None for anything else."""
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else None


def read_date(value: str) -> datetime | None:
    """The UTC time that a header has, as an HTTP date or in ISO 8601; None for anything else."""
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return read_time(value)
