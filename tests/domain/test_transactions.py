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


@pytest.mark.parametrize("status", ["PushError", "ValidationError", "Failed", "failed "])
def test_failed_statuses(status: str) -> None:
    """The union of the webhook's and the API's names for a failure."""
    assert is_failed(status)


@pytest.mark.parametrize("status", [None, "", "Completed", "Pending", "Unknown", "Bananas"])
def test_other_statuses_are_not_failures(status: str | None) -> None:
    assert not is_failed(status)


def test_a_transaction_that_never_failed_has_no_failure() -> None:
    assert latest_failure([attempt(1, "Completed"), attempt(2, "Pending")]) is None


def test_the_latest_failure_counts_and_the_first_is_remembered() -> None:
    failure = latest_failure([attempt(3, "Failed", cause="b"), attempt(1, "Failed", cause="a")])
    assert failure is not None
    assert (failure.attempt.cause_key, failure.first_failed_at) == ("b", T0 + timedelta(hours=1))
    assert failure.resolved_by is None


def test_the_first_later_completion_resolves_it() -> None:
    failure = latest_failure(
        [attempt(n, s) for n, s in ((1, "Failed"), (2, "Completed"), (3, "Completed"))]
    )
    assert failure is not None
    assert failure.resolved_by == "s2"


def test_a_failure_after_a_completion_is_open_again() -> None:
    failure = latest_failure(
        [attempt(n, s) for n, s in ((1, "Failed"), (2, "Completed"), (3, "Failed"))]
    )
    assert failure is not None
    assert (failure.attempt.sync_id, failure.resolved_by) == ("s3", None)


def test_only_a_sync_that_completed_all_of_its_rows_resolves() -> None:
    rows = [attempt(1, "Failed"), attempt(2, "Completed"), attempt(2, "Pending", position=1)]
    failure = latest_failure(rows)
    assert failure is not None
    assert failure.resolved_by is None


def test_of_several_failed_rows_in_one_sync_the_last_counts() -> None:
    rows = [attempt(1, "Failed", position=4, cause="b"), attempt(1, "Failed", cause="a")]
    failure = latest_failure(rows)
    assert failure is not None
    assert failure.attempt.cause_key == "b"


attempts = st.lists(
    st.builds(
        attempt,
        st.integers(0, 5),
        st.sampled_from(["Failed", "Completed", "Pending", "PushError"]),
        position=st.integers(0, 3),
    ),
    max_size=10,
    unique_by=lambda each: (each.sync_pk, each.position),
)


@given(attempts, st.randoms(use_true_random=False))
def test_the_latest_failure_is_what_a_plain_search_finds(
    given_attempts: list[Attempt], random: object
) -> None:
    """In any order of rows; written once more without the loop."""
    shuffled = list(given_attempts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    failure = latest_failure(shuffled)
    failed = [each for each in given_attempts if is_failed(each.status)]
    assert (failure is None) == (not failed)
    if failure is None:
        return
    last = max(each.sync_pk for each in failed)
    assert failure.attempt.sync_pk == last
    assert failure.first_failed_at == min(each.at for each in failed)
    later = {each.sync_pk for each in given_attempts if each.sync_pk > last}
    completed = [
        pk
        for pk in later
        if all(classify(e.status) == "completed" for e in given_attempts if e.sync_pk == pk)
    ]
    assert failure.resolved_by == (f"s{min(completed)}" if completed else None)
