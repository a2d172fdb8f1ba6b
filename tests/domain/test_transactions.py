"""Which rows failed, how many are in which class, and how a transaction failed last."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.models import Transaction
from app.domain.transactions import (
    Attempt,
    TransactionCounts,
    classify,
    count,
    is_failed,
    latest_failure,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def attempt(hour: int, status: str, *, position: int = 0, cause: str | None = None) -> Attempt:
    return Attempt(T0 + timedelta(hours=hour), hour, f"s{hour}", position, status, cause)


def test_rows_are_counted_by_class_and_may_repeat() -> None:
    row = Transaction("t", "PushError", "no", "bankfeeds")
    rows = (row, row, Transaction("u", "completed"), Transaction("v", "Pending"))
    unknown = Transaction(None, None)
    counts = TransactionCounts(total=5, completed=1, failed=2, pending=1, other=1)
    assert count((*rows, unknown)) == counts


@pytest.mark.parametrize(
    ("status", "expected"),
    [*((name, True) for name in ("PushError", "ValidationError", "Failed", "failed ")),
     *((name, False) for name in (None, "", "Completed", "Pending", "Unknown", "Bananas"))],
)  # fmt: skip
def test_failed_statuses(status: str | None, expected: bool) -> None:
    """The union of the webhook's and the API's names for a failure."""
    assert is_failed(status) is expected


@pytest.mark.parametrize(
    ("rows", "cause", "first_hour", "resolved_by"),
    [
        ([attempt(3, "Failed", cause="b"), attempt(1, "Failed", cause="a")], "b", 1, None),
        ([attempt(1, "Failed"), attempt(2, "Completed"), attempt(3, "Completed")], None, 1, "s2"),
        ([attempt(1, "Failed"), attempt(2, "Completed"), attempt(3, "Failed", cause="b")],
         "b", 1, None),
        ([attempt(1, "Failed"), attempt(2, "Completed"), attempt(2, "Pending", position=1)],
         None, 1, None),
        ([attempt(1, "Failed", position=4, cause="b"), attempt(1, "Failed", cause="a")],
         "b", 1, None),
    ],
    ids=["latest", "resolved", "failed again", "partly completed", "several rows"],
)  # fmt: skip
def test_the_latest_failure_counts_until_a_later_sync_completes_all_rows(
    rows: list[Attempt], cause: str | None, first_hour: int, resolved_by: str | None
) -> None:
    failure = latest_failure(rows)
    assert failure is not None
    assert (failure.attempt.cause_key, failure.resolved_by) == (cause, resolved_by)
    assert failure.first_failed_at == T0 + timedelta(hours=first_hour)


attempts = st.lists(
    st.builds(
        attempt,
        st.integers(0, 5),
        st.sampled_from(["Failed", "Completed", "Pending", "PushError"]),
        position=st.integers(0, 3),
    ),
    max_size=10,
    unique_by=lambda row: (row.sync_pk, row.position),
)


@given(attempts, st.randoms(use_true_random=False))
def test_the_latest_failure_is_what_a_plain_search_finds(
    rows: list[Attempt], random: object
) -> None:
    """In any order of rows; written once more without the loop."""
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    failure = latest_failure(shuffled)
    failed = [row for row in rows if is_failed(row.status)]
    assert (failure is None) == (not failed)
    if failure is None:
        return
    last = max(row.sync_pk for row in failed)
    assert failure.attempt.sync_pk == last
    assert failure.first_failed_at == min(row.at for row in failed)
    completed = [
        pk
        for pk in {row.sync_pk for row in rows if row.sync_pk > last}
        if all(classify(row.status) == "completed" for row in rows if row.sync_pk == pk)
    ]
    assert failure.resolved_by == (f"s{min(completed)}" if completed else None)
