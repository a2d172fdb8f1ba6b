"""What Codat's API answers, as values."""

from dataclasses import dataclass

from app.rules.news import Connection, Item


@dataclass(frozen=True, slots=True)
class TransactionList:
    """A sync's transaction list as read: `expected` is Codat's own count of rows.

    `steady` is False when that count changed while the pages were read, so that rows may be
    missing or doubled.
    """

    items: tuple[Item, ...]
    expected: int | None
    steady: bool


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
