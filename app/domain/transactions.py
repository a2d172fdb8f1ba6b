"""The rows of a transaction list: which of them failed, and how many are in which class."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from app.domain.models import Transaction

TransactionClass = Literal["failed", "pending", "other", "completed"]
CLASSES: tuple[TransactionClass, ...] = ("failed", "pending", "other", "completed")
"""Worst first: where rows of one transaction differ, the first of these that occurs counts."""

FAILED_STATUSES = frozenset({"pusherror", "validationerror", "failed"})


@dataclass(frozen=True, slots=True)
class TransactionCounts:
    """How many rows of a list are in which class; `total` counts rows as Codat does."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    pending: int = 0
    other: int = 0


def is_failed(status: str | None) -> bool:
    """True for the statuses that mean a transaction did not reach the accounting software."""
    return classify(status) == "failed"


def classify(status: str | None) -> TransactionClass:
    """The class of a status in any case; an unknown status is `other`."""
    folded = (status or "").strip().lower()
    if folded in FAILED_STATUSES:
        return "failed"
    if folded == "completed":
        return "completed"
    return "pending" if folded == "pending" else "other"


def worst(statuses: Iterable[str | None]) -> TransactionClass:
    """The class that counts for a transaction with these statuses (at least one)."""
    return min((classify(status) for status in statuses), key=CLASSES.index)


def count(transactions: Sequence[Transaction]) -> TransactionCounts:
    """Count the rows of a transaction list by class."""
    by_class: Counter[str] = Counter()
    for status, rows in Counter(row.status for row in transactions).items():
        by_class[classify(status)] += rows
    return TransactionCounts(total=len(transactions), **{name: by_class[name] for name in CLASSES})


class Attempt(NamedTuple):
    """What one sync did to a transaction: one row of that sync's list.

    `at` orders syncs (`Sync.occurred_at`); `sync_pk` breaks ties.
    """

    at: datetime
    sync_pk: int
    sync_id: str
    position: int
    status: str | None
    cause_key: str | None = None
    fingerprint: str | None = None


class LatestFailure(NamedTuple):
    """How a transaction failed last, and the first later sync that completed it, if any."""

    attempt: Attempt
    first_failed_at: datetime
    resolved_by: str | None


def latest_failure(
    attempts: Iterable[Attempt], before: LatestFailure | None = None
) -> LatestFailure | None:
    """The latest failure of one transaction over all syncs of its company; None if it never failed.

    Of several failed rows in one sync the last counts. A later sync resolves the failure when all
    of its rows for the transaction are completed. `before` is the result for all syncs before these
    attempts, where those are left out.
    """
    by_sync: dict[tuple[datetime, int], list[Attempt]] = {}
    for attempt in attempts:
        by_sync.setdefault((attempt.at, attempt.sync_pk), []).append(attempt)
    result = before
    for _, rows in sorted(by_sync.items()):
        failed = [row for row in rows if is_failed(row.status)]
        if failed:
            last = max(failed, key=lambda row: row.position)
            result = LatestFailure(last, result.first_failed_at if result else last.at, None)
        elif result and not result.resolved_by and worst(r.status for r in rows) == "completed":
            result = result._replace(resolved_by=rows[0].sync_id)
    return result
