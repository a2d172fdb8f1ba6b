"""The state of a sync: events commute, and Codat's status has the last word."""

from datetime import UTC, datetime, timedelta
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


def reported(*event_types: str) -> Sync:
    sync = BLANK
    for event_type in event_types:
        sync = apply_event(sync, event(event_type))
    return sync


def status(code: int | None, **more: object) -> SyncStatus:
    return SyncStatus("c", "s", code, **more)  # type: ignore[arg-type]


def verified(
    sync: Sync, code: int | None, *, asked: float = 1, newer: bool = False, **more: object
) -> Sync:
    answer = status(code, **more)
    return apply_status(sync, answer, asked_at=at(asked), has_newer_events=newer)


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
    given_events: list[WebhookEvent], answer: tuple[int, int] | None, random: object
) -> None:
    """On a blank sync, and on one that Codat has answered about."""
    start = BLANK if answer is None else verified(BLANK, answer[0], asked=answer[1])
    once, shuffled = start, start
    for each in given_events:
        once = apply_event(once, each)
    repeated = given_events + given_events[: len(given_events) // 2]
    random.shuffle(repeated)  # type: ignore[attr-defined]
    for each in repeated:
        shuffled = apply_event(shuffled, each)
    assert shuffled == once


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
    events = [event(SYNC_FAILED, status=status(5130, sync_utc=T0, **each)) for each in others]
    both = {apply_event(apply_event(BLANK, a), b) for a, b in permutations(events)}
    assert len(both) == 1


@given(st.lists(events, max_size=5), st.sampled_from([2000, 5130]))
def test_an_answer_covers_all_events_that_were_applied_before(
    given_events: list[WebhookEvent], code: int
) -> None:
    """Whatever time another host's clock gave them; applying them again changes nothing."""
    sync = BLANK
    for each in given_events:
        sync = apply_event(sync, each)
    answered = verified(sync, code, asked=-60)
    for each in given_events:
        answered = apply_event(answered, each)
    assert answered.state == ("completed" if code == 2000 else "failed")
    assert not answered.has_unverified_failure
    assert not answered.has_unverified_completion


@pytest.mark.parametrize("order", list(permutations([SYNC_STARTED, SYNC_FAILED, SYNC_COMPLETED])))
def test_failed_beats_completed_in_every_order(order: tuple[str, ...]) -> None:
    assert reported(*order).state == "failed"


def test_a_late_start_does_not_reopen_a_finished_sync() -> None:
    sync = apply_event(reported(SYNC_COMPLETED), event(SYNC_STARTED, 0))
    assert (sync.state, sync.started_at) == ("completed", T0)


def test_a_start_without_a_time_that_arrives_after_the_end_is_no_start() -> None:
    """A body of the older generation has no time of its own."""
    ended = verified(BLANK, 2000, asked=0, sync_utc=T0)
    late = apply_event(ended, event(SYNC_STARTED, received=1))
    assert (late.started_at, late.finished_at) == (None, T0)
    early = apply_event(BLANK, event(SYNC_STARTED, received=-1))
    assert verified(early, 2000, asked=0, sync_utc=T0).started_at == at(-1)


def test_codats_status_overrules_events_received_before() -> None:
    assert verified(reported(SYNC_FAILED), 2000).state == "completed"


def test_events_that_arrive_while_codat_is_asked_are_not_covered() -> None:
    sync = apply_event(BLANK, event(SYNC_FAILED, received=2))
    assert verified(sync, 2000, asked=1, newer=True).state == "failed"


def test_a_failure_after_the_answer_counts_until_codat_is_asked_again() -> None:
    sync = verified(reported(SYNC_COMPLETED), 2000, asked=1)
    sync = apply_event(sync, event(SYNC_FAILED, received=2))
    assert sync.state == "failed"
    assert verified(sync, 5130, asked=3).state == "failed"
    assert verified(sync, 2000, asked=3).state == "completed"


def test_an_event_received_before_the_answer_but_projected_after_it_is_covered() -> None:
    """The projector may be behind: what counts is when the event was received."""
    sync = verified(BLANK, 2000, asked=5)
    assert apply_event(sync, event(SYNC_FAILED, received=4)).state == "completed"


def test_a_completion_after_a_failed_status_does_not_hide_the_failure() -> None:
    """Completed means finished, not succeeded: only Codat's status can turn a failure."""
    sync = verified(reported(SYNC_FAILED), 5130)
    assert apply_event(sync, event(SYNC_COMPLETED, received=2)).state == "failed"


def test_a_running_status_covers_nothing() -> None:
    """Codat's status may lag behind its own webhook; then it must be asked again."""
    sync = verified(reported(SYNC_FAILED), 1010)
    assert sync.state == "failed"
    assert reason_to_fetch_again(sync) is not None


def test_a_sync_that_codat_runs_again_is_in_progress() -> None:
    """A retry in the Portal: the events before the last final answer stay covered."""
    sync = verified(verified(reported(SYNC_FAILED), 5130, asked=1), 1000, asked=2)
    assert (sync.state, sync.outcome) == ("started", "in_progress")


def test_an_older_answer_never_replaces_a_newer_one() -> None:
    newer = verified(reported(SYNC_FAILED), 5130, asked=5)
    assert verified(newer, 2000, asked=4) == newer


@pytest.mark.parametrize(
    ("code", "statuses", "outcome"),
    [
        (2000, ["Completed", "Completed"], "all_written"),
        (2000, ["Completed", "Pending"], "unknown"),
        (2000, ["Completed", "Bananas"], "unknown"),
        (2000, ["Completed", "PushError"], "partly_failed"),
        (2040, [], "nothing_to_write"),
        (5130, ["Completed", "ValidationError"], "partly_failed"),
        (5130, ["Failed"], "failed"),
        (5130, [], "failed"),
        (4000, ["Completed"], "failed"),
    ],
)
def test_the_outcome_follows_from_verdict_and_items(
    code: int, statuses: list[str], outcome: str
) -> None:
    """Every outcome of a finished sync, from what Codat says."""
    sync = verified(reported(SYNC_COMPLETED), code)
    items = tuple(Transaction(str(n), status) for n, status in enumerate(statuses))
    sync = with_transactions(sync, items, source="codat", expected=len(items), at=T0)
    assert sync.outcome == outcome


def test_a_sync_with_a_failed_item_counts_as_failed_whatever_its_code() -> None:
    """Codat's own rule; the code and the list may disagree for a moment."""
    sync = with_transactions(
        verified(reported(SYNC_COMPLETED), 2000),
        (Transaction("a", "Completed"), Transaction("b", "PushError")),
        source="codat",
        expected=2,
        at=T0,
    )
    assert (sync.state, errors_state(sync, "done")) == ("failed", "fetched")


def test_nothing_is_shown_as_written_before_it_is_proved() -> None:
    """A completed event alone, a status alone, or a webhook's own items prove nothing."""
    completed = reported(SYNC_COMPLETED)
    assert completed.outcome == "unknown"
    settled = verified(completed, 2000)
    assert settled.outcome == "unknown"
    inline = with_transactions(settled, (Transaction("t", "Completed"),), source="webhook")
    assert inline.outcome == "unknown"


def test_a_sync_in_progress_says_so() -> None:
    """Only a start was heard."""
    sync = reported(SYNC_STARTED)
    assert (sync.outcome, errors_state(sync, None), sync.finished_at) == (
        "in_progress",
        "not_needed",
        None,
    )


def fetched(code: int, *statuses: str, expected: int | None = None, steady: bool = True) -> Sync:
    items = tuple(Transaction(str(n), status) for n, status in enumerate(statuses))
    sync = verified(reported(SYNC_FAILED), code)
    counted = len(items) if expected is None else expected
    return with_transactions(sync, items, source="codat", expected=counted, steady=steady, at=T0)


def test_errors_are_waited_for_then_fetched() -> None:
    """From the webhook to the recorded list."""
    assert errors_state(reported(SYNC_FAILED), "pending") == "waiting"
    assert errors_state(fetched(5130, "PushError"), "done") == "fetched"


def test_errors_are_given_up_visibly() -> None:
    """A dead fetch never looks like an absent error."""
    assert errors_state(reported(SYNC_FAILED), "dead") == "given_up"


@pytest.mark.parametrize(
    "sync",
    [
        fetched(5130, "PushError", expected=134),
        fetched(5130, "PushError", steady=False),
        fetched(5130, "PushError", "Pending"),
    ],
)
def test_a_short_shaky_or_pending_list_is_incomplete(sync: Sync) -> None:
    """Rows that are known are shown, but never as the whole truth; Codat is asked again."""
    assert errors_state(sync, "pending") == "incomplete"
    assert reason_to_fetch_again(sync) is not None


def test_a_clean_sync_needs_no_errors() -> None:
    """Completed, listed, nothing failed."""
    sync = fetched(2000, "Completed")
    assert (errors_state(sync, "done"), reason_to_fetch_again(sync)) == ("not_needed", None)


def test_a_contradicting_webhook_makes_known_errors_wait_again() -> None:
    """A failure after a clean verdict: what we know may be out of date."""
    sync = apply_event(fetched(2000, "Completed"), event(SYNC_FAILED, received=2))
    assert errors_state(sync, "pending") == "waiting"


def test_codats_own_time_is_the_end_once_it_is_known() -> None:
    """Before that, the earliest terminal event's."""
    sync = apply_event(apply_event(BLANK, event(SYNC_FAILED, 30)), event(SYNC_FAILED, 20))
    assert sync.finished_at == T0 + timedelta(minutes=20)
    assert verified(sync, 5130, sync_utc=at(5)).finished_at == at(5)


@pytest.mark.parametrize(
    ("code", "phase"),
    [(1000, "running"), (1010, "running"), (2000, "completed"), (2040, "completed")]
    + [(code, "failed") for code in (4000, 4040, 4220, 4260, 5000, 5080, 5120, 5130)]
    + [(1999, "running"), (2999, "completed"), (4999, "failed"), (5999, "failed")]
    + [(3000, None), (0, None), (-1, None), (None, None)],
)
def test_a_code_is_classed_by_its_thousands(code: int | None, phase: str | None) -> None:
    """The seed's table and codes that nobody has documented."""
    assert phase_of(code) == phase


def test_every_documented_code_has_its_text_and_others_say_their_code() -> None:
    """The text is Codat's; an unknown code is named, not hidden."""
    assert all(status_text(code) == text for code, text in STATUS_TEXTS.items())
    assert status_text(5999) == "Failed (code 5999)"
    assert status_text(7) == "Unknown status (code 7)"
    assert status_text(None) is None


def test_a_status_told_by_webhook_counts_until_codat_is_asked() -> None:
    """The oldest webhook shape carries a whole status; the latest of them is shown."""
    late = event(SYNC_FAILED, status=status(4000, sync_utc=T0 + timedelta(hours=1)))
    early = event(SYNC_STARTED, status=status(1000, sync_utc=T0))
    assert apply_event(apply_event(BLANK, late), early).status_code == 4000
    asked = verified(BLANK, 2000, sync_utc=T0)
    assert apply_event(asked, late).status_code == 2000


def test_an_unknown_verdict_is_never_called_a_success() -> None:
    """A code outside every class leaves the outcome unknown and the question open."""
    sync = verified(reported(SYNC_COMPLETED), 3000)
    assert (sync.state, sync.outcome) == ("completed", "unknown")
    assert reason_to_fetch_again(sync) is not None
    assert verified(BLANK, None).outcome == "unknown"
