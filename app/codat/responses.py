"""What Codat's API answers, as values, read leniently.

A member that cannot be read is None and a row that cannot be read is left out; only an answer that
is another thing altogether raises CodatUnavailable, because then the next one may be right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from app.codat.webhooks.payloads import identifier, read_item, read_status, text
from app.domain.models import CodatStatus, Connection, Item
from app.errors import CodatUnavailable

LONGEST_NAME = 200
LONGEST_URL = 2000


@dataclass(frozen=True, slots=True)
class TransactionList:
    """A sync's transaction list as read: `expected` is Codat's own count of rows.

    `steady` is False when the list moved while its pages were read, so that rows may be missing or
    doubled even where their number is right. It is `doubtful` when only one thing speaks for that:
    a row stands on two pages, which may be honest, since rows do repeat.
    """

    items: tuple[Item, ...]
    expected: int | None
    steady: bool
    doubtful: bool = False

    @property
    def complete(self) -> bool:
        """True when these are all rows as far as Codat tells; without its count, all it showed."""
        return self.steady and self.expected in (None, len(self.items))


def listed(pages: Sequence["TransactionPage"]) -> TransactionList:
    """The list that these pages make.

    It moved when Codat's count changed, when a page that is not the last came short, when a page
    came twice, or when one row stands on two pages.
    """
    short = any(len(page.items) < page.size for page in pages[:-1])
    twice = any(page.items == after.items for page, after in pairwise(pages) if page.items)
    moved = short or twice or len({page.total for page in pages}) > 1
    items = tuple(item for page in pages for item in page.items)
    expected = pages[-1].total
    astride = _is_astride(pages)
    return TransactionList(
        items,
        expected,
        steady=not moved and not astride,
        doubtful=astride and not moved and expected in (None, len(items)),
    )


def _is_astride(pages: Sequence["TransactionPage"]) -> bool:
    seen: set[Item] = set()
    for page in pages:
        rows = set(page.items)
        if not seen.isdisjoint(rows):
            return True
        seen |= rows
    return False


def judged(first: TransactionList, again: TransactionList) -> TransactionList:
    """A doubtful list, once it was read again in pages of another size.

    Where a page had slipped, another row would be missing now. Two equal lists are the truth.
    """
    if again.steady:
        return again
    return replace(first, steady=again.doubtful and again.items == first.items, doubtful=False)


@dataclass(frozen=True, slots=True)
class TransactionPage:
    """One page: its rows, how many a full page has, and Codat's count of all rows."""

    items: tuple[Item, ...]
    size: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Company:
    """A company of ours at Codat, with its connections."""

    company_id: str
    name: str | None
    connections: tuple[Connection, ...]


@dataclass(frozen=True, slots=True)
class Consumer:
    """A webhook endpoint as Codat knows it."""

    consumer_id: str | None
    url: str | None
    disabled: bool
    event_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of any list: its rows, how many a full page has, and Codat's count of all rows."""

    rows: list[Any]
    size: int
    total: int | None

    def is_last(self, number: int) -> bool:
        """True when no page need follow this one, which is the `number`th from 1.

        Pages are counted; without Codat's count the list ends at a page that is not full.
        """
        if not self.rows:
            return True
        if self.total is None:
            return len(self.rows) < self.size
        return number * self.size >= self.total

    def promises(self, number: int) -> bool:
        """True when by Codat's count there is a page of this number; never after a short page."""
        full = len(self.rows) >= self.size
        return full and self.total is not None and (number - 1) * self.size < self.total

    def contradicts(self, before: "Page | None") -> bool:
        """True when this page repeats the one before it, or both came short of a full page."""
        if before is None:
            return False
        return self.rows == before.rows or max(len(self.rows), len(before.rows)) < self.size


def read_page(told: object, asked: int) -> Page:
    """A page of results; its size is what was asked for, or less where Codat says so."""
    fields = _object(told, "page of results")
    rows = fields.get("results")
    if not isinstance(rows, list):
        raise CodatUnavailable("Codat's answer is not a page of results")
    total, size = _count(fields.get("totalResults")), _count(fields.get("pageSize"))
    return Page(rows, size if size and size < asked else asked, total)


def read_one_status(told: object) -> CodatStatus:
    """A single sync's status."""
    return read_status(_object(told, "sync status"))


def read_statuses(told: object) -> list[CodatStatus]:
    """A bare array of statuses."""
    rows = _array(told, "list of sync statuses")
    return [read_status(row) for row in rows if isinstance(row, dict)]


def read_items(rows: object) -> tuple[Item, ...]:
    """Rows of transactions, in Codat's order."""
    return tuple(item for item in map(read_item, _array(rows, "list of transactions")) if item)


def read_company(row: object) -> Company | None:
    """One row of the companies; None without an id."""
    company_id = identifier(row.get("id")) if isinstance(row, dict) else None
    if not isinstance(row, dict) or company_id is None:
        return None
    name = text(row.get("name"), LONGEST_NAME)
    return Company(company_id, name, read_connections(row.get("dataConnections")))


def read_connections(rows: object) -> tuple[Connection, ...]:
    """Rows of connections; empty for anything else."""
    return tuple(
        Connection(
            identifier(row.get("id")),
            text(row.get("platformName"), LONGEST_NAME),
            text(row.get("sourceType"), LONGEST_NAME),
            text(row.get("status"), LONGEST_NAME),
        )
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, dict)
    )


def read_config(told: object) -> dict[str, Any]:
    """A configuration, as it came."""
    return _object(told, "configuration")


def read_consumers(told: object) -> list[Consumer]:
    """The webhook endpoints of an answer."""
    rows = _array(_object(told, "list of webhooks").get("results"), "list of webhooks")
    return [_consumer(row) for row in rows if isinstance(row, dict)]


def read_sync_id(told: object) -> str:
    """The id of a sync that was just started."""
    sync_id = identifier(_object(told, "started sync").get("syncId"))
    if sync_id is None:
        raise CodatUnavailable("Codat's answer names no sync")
    return sync_id


def _consumer(row: dict[str, Any]) -> Consumer:
    types = row.get("eventTypes")
    return Consumer(
        identifier(row.get("id")),
        text(row.get("url"), LONGEST_URL),
        row.get("disabled") is True,
        tuple(name for name in types if isinstance(name, str)) if isinstance(types, list) else (),
    )


def _object(told: object, what: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise CodatUnavailable(f"Codat's answer is not a {what}")
    return told


def _array(told: object, what: str) -> list[Any]:
    if not isinstance(told, list):
        raise CodatUnavailable(f"Codat's answer is not a {what}")
    return told


def _count(told: object) -> int | None:
    counted = isinstance(told, int) and not isinstance(told, bool) and told >= 0
    return told if counted and isinstance(told, int) else None
