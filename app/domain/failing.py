"""What a transaction's history says: whether it is open, and what it failed of.

A failed row is open until a later sync in which all of the transaction's rows are completed.
"""

from collections.abc import Collection
from operator import attrgetter
from typing import Any, NamedTuple

Why = tuple[str, str, str]
"""A cause, a fingerprint, and a day."""


class Told(NamedTuple):
    """One row of a transaction in one sync. Times may be of any kind that can be compared."""

    at: Any
    sync: int
    day: str
    failed: bool
    completed: bool
    cause: str | None
    fingerprint: str | None

    @property
    def moment(self) -> tuple[Any, int]:
        """The order of a transaction's syncs: by their own time."""
        return self.at, self.sync


class Filed(NamedTuple):
    """How a transaction, or a sync, counts as a failure of one cause and one message on one day.

    `next_day` is the day on which it failed so again, or empty. So of all the days of a range, a
    transaction counts on the one whose next is not in it. For the cause as a whole it counts by the
    newest message of the day, with the day after on which it failed of that cause; the other
    messages have None there.
    """

    next_day: str
    cause_next_day: str | None
    first_at: Any
    last_at: Any
    sync: int
    transactions: int
    open: int
    syncs: int


def judged(history: Collection[Told]) -> tuple[bool, dict[Why, Filed]]:
    """Is the transaction with these rows open, and what did it fail of, day by day?

    A failed row without a cause, which is not decided yet, makes it open and is not filed.
    """
    unfinished = {row.moment for row in history if not row.completed}
    cured = max({row.moment for row in history} - unfinished, default=None)
    failed = sorted((row for row in history if row.failed), key=attrgetter("moment"))
    failures: dict[Why, Filed] = {}
    leading: dict[tuple[str, str], Why] = {}  # by cause and day, oldest first
    for row in failed:
        if row.cause is not None and row.fingerprint is not None:
            why = (row.cause, row.fingerprint, row.day)
            first_at = failures[why].first_at if why in failures else row.at
            still = int(cured is None or row.moment > cured)
            failures[why] = Filed("", None, first_at, row.at, row.sync, 1, still, 0)
            leading[row.cause, row.day] = why
    is_open = bool(failed) and (cured is None or failed[-1].moment > cured)
    return is_open, _chained(failures, leading)


def _chained(failures: dict[Why, Filed], leading: dict[tuple[str, str], Why]) -> dict[Why, Filed]:
    """With the days that follow. What is given is in the order of days."""
    next_day: dict[tuple[str, ...], str] = {}
    chained: dict[Why, Filed] = {}
    for (cause, fingerprint, day), filed in reversed(failures.items()):
        following = next_day.get((cause, fingerprint), "")
        next_day[cause, fingerprint] = day
        chained[cause, fingerprint, day] = filed._replace(next_day=following)
    for (cause, day), why in reversed(leading.items()):
        chained[why] = chained[why]._replace(cause_next_day=next_day.get((cause,), ""))
        next_day[(cause,)] = day
    return chained
