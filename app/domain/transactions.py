"""The rows of a transaction list: which of them failed, and how many are in which class."""

from collections import Counter
from dataclasses import dataclass

from app.domain.models import Item

FAILING_STATUSES = frozenset({"pusherror", "validationerror", "failed"})


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows of a transaction list are in which class; `total` counts rows as Codat does."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    pending: int = 0
    other: int = 0


def is_failing(status: str | None) -> bool:
    """True for the statuses that mean an item did not reach the books."""
    return status is not None and status.strip().lower() in FAILING_STATUSES


def count(items: tuple[Item, ...]) -> Counts:
    """Count the rows of a transaction list by class; an unknown status is `other`."""
    tally = {"completed": 0, "failed": 0, "pending": 0, "other": 0}
    for status, rows in Counter(item.status for item in items).items():
        tally[_class_of(status)] += rows
    return Counts(total=len(items), **tally)


def _class_of(status: str | None) -> str:
    folded = (status or "").strip().lower()
    if folded in FAILING_STATUSES:
        return "failed"
    return folded if folded in ("completed", "pending") else "other"
