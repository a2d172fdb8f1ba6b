"""What Codat's API answers, as values."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.rules.news import Connection, Item


@dataclass(frozen=True, slots=True)
class TransactionList:
    """A sync's transaction list as read: `expected` is Codat's own count of rows.

    `steady` is False when the list moved while its pages were read, so that rows may be missing or
    doubled even where their number is right.
    """

    items: tuple[Item, ...]
    expected: int | None
    steady: bool


def listed(pages: Sequence["TransactionPage"]) -> TransactionList:
    """The list that these pages make.

    It moved when Codat's count changed, when a page that is not the last came short, or when one
    row stands on two pages. The last may be honest, since rows do repeat: who reads the same list
    twice may believe it.
    """
    counts = {page.total for page in pages}
    short = any(len(page.items) < page.size for page in pages[:-1])
    seen: set[Item] = set()
    astride = False
    for page in pages:
        rows = set(page.items)
        astride = astride or not seen.isdisjoint(rows)
        seen |= rows
    return TransactionList(
        items=tuple(item for page in pages for item in page.items),
        expected=pages[-1].total,
        steady=len(counts) == 1 and not short and not astride,
    )


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
