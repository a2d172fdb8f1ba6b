"""What a transaction's history says: whether it is open, and what it failed of.

A failed row is open until a later sync in which all of the transaction's rows are completed.
"""

from collections.abc import Collection
from operator import attrgetter
from typing import Any, NamedTuple

Why = tuple[str, str]
"""A cause and a fingerprint."""


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
    """How a transaction, or a sync, counts as a failure of one cause and one message.

    It counts at its newest failure of that kind: on that day, in that sync. Of the messages of one
    cause the newest leads: by it the transaction counts for the cause as a whole.
    """

    day: str
    first_at: Any
    last_at: Any
    sync: int
    transactions: int
    open: int
    syncs: int
    leads: bool


def judged(history: Collection[Told]) -> tuple[bool, dict[Why, Filed]]:
    """Is the transaction with these rows open, and what did it fail of?

    A failed row without a cause, which is not decided yet, makes it open and is not filed.
    """
    unfinished = {row.moment for row in history if not row.completed}
    cured = max({row.moment for row in history} - unfinished, default=None)
    failed = sorted((row for row in history if row.failed), key=attrgetter("moment"))
    failures: dict[Why, Filed] = {}
    leading: dict[str, Why] = {}
    for row in failed:
        if row.cause is not None and row.fingerprint is not None:
            why = (row.cause, row.fingerprint)
            first_at = failures[why].first_at if why in failures else row.at
            is_open = int(cured is None or row.moment > cured)
            failures[why] = Filed(row.day, first_at, row.at, row.sync, 1, is_open, 0, leads=False)
            leading[row.cause] = why
    failures |= {why: failures[why]._replace(leads=True) for why in leading.values()}
    return bool(failed) and (cured is None or failed[-1].moment > cured), failures
