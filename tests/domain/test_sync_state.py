"""The state of a sync: events commute, and Codat's status has the last word."""

from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.models import (
    SYNC_COMPLETED,
    SYNC_FAILED,
    SYNC_STARTED,
    SyncStatus,
    Transaction,
    WebhookEvent,
    WebhookPayload,
)
from app.domain.status_codes import STATUS_TEXTS, phase_of, status_text
from app.domain.sync_state import (
    JobState,
    Sync,
    apply_event,
    apply_status,
    errors_state,
    reason_to_fetch_again,
    with_transactions,
)

T0 = datetime(2026, 1, 1, 9, tzinfo=UTC)
BLANK = Sync(company_id="c", sync_id="s")


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def event(
    event_type: str, generated: int | None = None, *, received: float = 0, **more: object
) -> WebhookEvent:
    payload = WebhookPayload(
        event_type=event_type,
        parse_status="ok",
        company_id="c",
        sync_id="s",
        generated_at=None if generated is None else at(generated),
        **more,  # type: ignore[arg-type]
    )
    return WebhookEvent("m", at(received), payload)


def reported(*event_types: str, received: float = 0) -> Sync:
    return reduce(apply_event, [event(name, received=received) for name in event_types], BLANK)


def status(code: int | None, **more: object) -> SyncStatus:
    return SyncStatus("c", "s", code, **more)  # type: ignore[arg-type]


def verified(
    sync: Sync, code: int | None, *, minute: float = 1, newer: bool = False, **more: object
) -> Sync:
    """The sync after Codat's answer to a request in this minute."""
    answer = status(code, **more)
    return apply_status(sync, answer, requested_at=at(minute), has_newer_events=newer)


def fetched(code: int, *rows: str, expected: int | None = None, steady: bool = True) -> Sync:
    """A sync with Codat's answer and its list of transactions with these statuses."""
    listed = tuple(Transaction(str(n), row) for n, row in enumerate(rows))
    expected = len(listed) if expected is None else expected
    sync = verified(reported(SYNC_COMPLETED), code)
    return with_transactions(sync, listed, source="codat", expected=expected, steady=steady, at=T0)


statuses = st.builds(
    status,
    st.sampled_from([1000, 2000, 4000]),
    sync_utc=st.none() | st.integers(0, 9).map(lambda n: T0 + timedelta(hours=n)),
    error_message=st.none() | st.sampled_from(["a", "b"]),
)
events = st.builds(
    event,
    st.sampled_from([SYNC_STARTED, SYNC_FAILED, SYNC_COMPLETED]),
    st.none() | st.integers(0, 300),
    received=st.integers(0, 20),
    failure_stage=st.none() | st.sampled_from(["Pushing", "Mapping"]),
    status=st.none() | statuses,
    transactions=st.none() | st.just((Transaction("t", "Failed"),)),
)
answers = st.none() | st.tuples(st.sampled_from([1000, 2000, 5130, 3000]), st.integers(0, 20))


@given(st.lists(events, max_size=6), answers, st.randoms(use_true_random=False))
def test_order_and_number_of_events_do_not_matter(
    received: list[WebhookEvent], answer: tuple[int, int] | None, random: object
) -> None:
    """On a blank sync, and on one that Codat has answered about."""
    start = BLANK if answer is None else verified(BLANK, answer[0], minute=answer[1])
    repeated = received + received[: len(received) // 2]
    random.shuffle(repeated)  # type: ignore[attr-defined]
    assert reduce(apply_event, repeated, start) == reduce(apply_event, received, start)


@pytest.mark.parametrize(
    "others",
    [
        ({"error_message": "Correlation ID: a"}, {"error_message": "Correlation ID: b"}),
        ({"exception_message": "a"}, {"exception_message": None}),
        ({"data_pushed": None}, {"data_pushed": False}),
    ],
)
def test_statuses_that_differ_in_little_commute(others: tuple[dict[str, object], ...]) -> None:
    """Two bare statuses with the same code and time: each order ends in the same."""
    pair = [event(SYNC_FAILED, status=status(5130, sync_utc=T0, **more)) for more in others]
    assert reduce(apply_event, pair, BLANK) == reduce(apply_event, reversed(pair), BLANK)


@given(st.lists(events, max_size=5), st.sampled_from([2000, 5130]))
def test_an_answer_covers_all_events_that_were_applied_before(
    received: list[WebhookEvent], code: int
) -> None:
    """Whatever time another host's clock gave them; applying them again changes nothing."""
    answered = verified(reduce(apply_event, received, BLANK), code, minute=-60)
    answered = reduce(apply_event, received, answered)
    assert answered.state == ("completed" if code == 2000 else "failed")
    assert not answered.has_unverified_failure
    assert not answered.has_unverified_completion


FAILURE, COMPLETION = event(SYNC_FAILED, received=2), event(SYNC_COMPLETED, received=2)


@pytest.mark.parametrize(
    ("sync", "state"),
    [
        *((reported(*names), "failed")
          for names in permutations([SYNC_STARTED, SYNC_FAILED, SYNC_COMPLETED])),
        (reported(SYNC_COMPLETED, SYNC_STARTED), "completed"),
        # Codat's status overrules the events received before, also those projected after it
        (verified(reported(SYNC_FAILED), 2000), "completed"),
        (apply_event(verified(BLANK, 2000, minute=5), FAILURE), "completed"),
        (verified(reported(SYNC_FAILED, received=2), 2000, newer=True), "failed"),
        # a failure after the answer counts until the next fetch
        (apply_event(verified(reported(SYNC_COMPLETED), 2000), FAILURE), "failed"),
        (verified(apply_event(verified(BLANK, 2000), FAILURE), 5130, minute=3), "failed"),
        (verified(apply_event(verified(BLANK, 2000), FAILURE), 2000, minute=3), "completed"),
        # completed means finished, not succeeded: only Codat's status can turn a failure
        (apply_event(verified(reported(SYNC_FAILED), 5130), COMPLETION), "failed"),
        # a retry in the Portal: the events before the last final answer stay covered
        (verified(verified(reported(SYNC_FAILED), 5130), 1000, minute=2), "started"),
        # the code and the list may disagree for a moment
        (fetched(2000, "Completed", "PushError"), "failed"),
        (verified(reported(SYNC_COMPLETED), 3000), "completed"),
    ],
)  # fmt: skip
def test_failed_beats_completed_until_codats_status_says_otherwise(sync: Sync, state: str) -> None:
    assert sync.state == state


def test_a_start_is_never_after_the_end() -> None:
    """A body of the older generation has no time of its own, and may arrive late."""
    assert apply_event(reported(SYNC_COMPLETED), event(SYNC_STARTED, 0)).started_at == T0
    ended = verified(BLANK, 2000, minute=0, sync_utc=T0)
    late = apply_event(ended, event(SYNC_STARTED, received=1))
    assert (late.started_at, late.finished_at) == (None, T0)
    early = apply_event(BLANK, event(SYNC_STARTED, received=-1))
    assert verified(early, 2000, minute=0, sync_utc=T0).started_at == at(-1)


def test_an_older_answer_never_replaces_a_newer_one() -> None:
    newer = verified(reported(SYNC_FAILED), 5130, minute=5)
    assert verified(newer, 2000, minute=4) == newer


@pytest.mark.parametrize(
    ("sync", "outcome"),
    [
        (fetched(2000, "Completed", "Completed"), "all_written"),
        (fetched(2000, "Completed", "Pending"), "unknown"),
        (fetched(2000, "Completed", "Bananas"), "unknown"),
        (fetched(2000, "Completed", "PushError"), "partly_failed"),
        (fetched(2040), "nothing_to_write"),
        (fetched(5130, "Completed", "ValidationError"), "partly_failed"),
        (fetched(5130, "Failed"), "failed"),
        (fetched(5130), "failed"),
        (fetched(4000, "Completed"), "failed"),
        # a completed event, a status, or a webhook's own list prove nothing
        (reported(SYNC_COMPLETED), "unknown"),
        (verified(reported(SYNC_COMPLETED), 2000), "unknown"),
        (with_transactions(verified(BLANK, 2000), (Transaction("t", "Completed"),),
                           source="webhook"), "unknown"),
        # a code outside every class is never called a success
        (verified(reported(SYNC_COMPLETED), 3000), "unknown"),
        (verified(BLANK, None), "unknown"),
        (verified(verified(reported(SYNC_FAILED), 5130), 1000, minute=2), "in_progress"),
        (reported(SYNC_STARTED), "in_progress"),
    ],
)  # fmt: skip
def test_nothing_is_shown_as_written_before_it_is_proved(sync: Sync, outcome: str) -> None:
    assert sync.outcome == outcome


@pytest.mark.parametrize(
    ("sync", "job", "expected", "is_asked_again"),
    [
        (reported(SYNC_STARTED), None, "not_needed", False),
        (reported(SYNC_FAILED), "pending", "waiting", True),
        (reported(SYNC_FAILED), "dead", "given_up", True),
        (fetched(5130, "PushError"), "done", "fetched", False),
        (fetched(2000, "Completed", "PushError"), "done", "fetched", False),
        (fetched(2000, "Completed"), "done", "not_needed", False),
        # rows that are known are shown, but never as the whole truth
        (fetched(5130, "PushError", expected=134), "pending", "incomplete", True),
        (fetched(5130, "PushError", steady=False), "pending", "incomplete", True),
        (fetched(5130, "PushError", "Pending"), "pending", "incomplete", True),
        # the stored status may be out of date, or lag behind Codat's own webhook
        (apply_event(fetched(2000, "Completed"), FAILURE), "pending", "waiting", False),
        (verified(reported(SYNC_FAILED), 1010), "pending", "waiting", True),
        (verified(reported(SYNC_COMPLETED), 3000), "pending", "waiting", True),
    ],
)
def test_what_is_known_of_a_syncs_errors(
    sync: Sync, job: JobState | None, expected: str, is_asked_again: bool
) -> None:
    assert errors_state(sync, job) == expected
    assert (reason_to_fetch_again(sync) is not None) == is_asked_again


def test_codats_own_time_is_the_end_once_it_is_known() -> None:
    """Before that, the earliest terminal event's."""
    sync = apply_event(apply_event(BLANK, event(SYNC_FAILED, 30)), event(SYNC_FAILED, 20))
    assert sync.finished_at == at(20)
    assert verified(sync, 5130, sync_utc=at(5)).finished_at == at(5)
    assert reported(SYNC_STARTED).finished_at is None


@pytest.mark.parametrize(
    ("code", "phase"),
    [(1000, "running"), (1010, "running"), (2000, "completed"), (2040, "completed")]
    + [(code, "failed") for code in (4000, 4040, 4220, 4260, 5000, 5080, 5120, 5130)]
    + [(1999, "running"), (2999, "completed"), (4999, "failed"), (5999, "failed")]
    + [(3000, None), (0, None), (-1, None), (None, None)],
)
def test_a_code_is_classed_by_its_thousands(code: int | None, phase: str | None) -> None:
    """Documented and undocumented codes."""
    assert phase_of(code) == phase


def test_every_documented_code_has_its_text_and_others_say_their_code() -> None:
    """The text is Codat's; an unknown code is named, not hidden."""
    assert all(status_text(code) == text for code, text in STATUS_TEXTS.items())
    assert status_text(5999) == "Failed (code 5999)"
    assert status_text(7) == "Unknown status (code 7)"
    assert status_text(None) is None


def test_a_status_in_a_webhook_counts_until_codat_is_asked() -> None:
    """The oldest webhook shape carries a whole status; the latest of them is shown."""
    late = event(SYNC_FAILED, status=status(4000, sync_utc=T0 + timedelta(hours=1)))
    early = event(SYNC_STARTED, status=status(1000, sync_utc=T0))
    assert apply_event(apply_event(BLANK, late), early).status_code == 4000
    assert apply_event(verified(BLANK, 2000, sync_utc=T0), late).status_code == 2000
