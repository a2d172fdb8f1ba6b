"""What a page must not take for known: lists nobody has read yet, books nobody has looked into.

Codat's API answers what is kept; these pages are read by people, who take a zero for a fact.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.db.queries.transactions import ItemOutcome
from app.domain.causes.fingerprint import masked
from app.web.api.schemas import SyncAnswer, TransactionCounts
from app.web.health import STALE_AFTER
from app.web.pages.labels import ITEM_NOW, ITEM_TONES, TRANSACTION_TOLD, Tone

RECORDED_BEFORE = "already_processed"
_NOT_READ = ("waiting", "incomplete", "given_up")
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_SAID_TWICE = re.compile(r"^given up: | \(given up after \d+ attempts?\)$")


class Placed(Protocol):
    """A row of a transaction list with what became of its transaction."""

    @property
    def current(self) -> ItemOutcome:
        """The outcome in the newest sync that has it."""

    @property
    def sync_id(self) -> str:
        """Codat's id of the sync the row is in."""

    @property
    def cause(self) -> str | None:
        """Why it failed."""


@dataclass(frozen=True, slots=True)
class Watched:
    """When a worker was last seen, and whether one lives."""

    seen_at: datetime | None
    lives: bool


def watched(seen: datetime | None, now: datetime) -> Watched:
    """Whether anything fetches from Codat, by the last heartbeat; `/readyz` asks the same."""
    return Watched(seen, lives=seen is not None and now - seen <= STALE_AFTER)


def is_unlisted(sync: SyncAnswer) -> bool:
    """True when no item is listed and Codat's whole list has not been read: no zero is a fact."""
    unread = sync.state == "started" or sync.errors.state in _NOT_READ
    return unread and not sync.transactions.total


def candid(sync: SyncAnswer) -> SyncAnswer:
    """The sync with counts only where they are known."""
    if not is_unlisted(sync):
        return sync
    counts = TransactionCounts(expected=sync.transactions.expected)
    return sync.model_copy(update={"transactions": counts})


def now_of(item: Placed) -> tuple[Tone, str]:
    """Tone and title of what became of an item; a double that was held back is no loss."""
    if item.current == "failed" and item.cause == RECORDED_BEFORE:
        return "calm", "Recorded before?"
    return ITEM_TONES[item.current], ITEM_NOW[item.current]


def told_of(item: Placed) -> str:
    """The same in a sentence."""
    if item.current == "failed" and item.cause == RECORDED_BEFORE:
        return "Codat says that it was recorded before: check in the accounting software."
    return TRANSACTION_TOLD[item.current]


def newest_of(items: Sequence[Placed]) -> Placed:
    """The row of the newest sync that decides; one that failed otherwise weighs more than a double.

    A transaction may have several rows in one sync.
    """
    newest = [each for each in items if each.sync_id == items[0].sync_id]
    others = [each for each in newest if each.cause not in (None, RECORDED_BEFORE)]
    doubles = [each for each in newest if each.cause == RECORDED_BEFORE]
    return (others or doubles or newest)[0]


def says_more(exception: str | None, error: str | None) -> bool:
    """True when the exception's message differs from the error's in more than ids and numbers."""
    return bool(exception) and masked(exception) != masked(error)


def why_given_up(reason: str) -> str:
    """Why asking was given up, without saying once more that it was."""
    return _SAID_TWICE.sub("", reason)


def _read(time: str) -> str | datetime:
    """The time, or the text where it only looks like one: reasons quote what others say."""
    try:
        return datetime.fromisoformat(time)
    except ValueError:
        return time


def pieces(reason: str) -> list[str | datetime]:
    """A reason in its order, the times in it as times."""
    found: list[str | datetime] = []
    end = 0
    for time in _TIME.finditer(reason):
        found += [reason[end : time.start()], _read(time[0])]
        end = time.end()
    return [*found, reason[end:]]
