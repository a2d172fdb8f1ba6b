"""What a sync is: the merge is a lattice, and Codat's verdict has the last word."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.models import SYNC_COMPLETED, SYNC_FAILED, SYNC_STARTED, CodatStatus, Event, Item
from app.domain.status_codes import STATUS_TEXTS, phase_of, status_text
from app.domain.sync_state import Heard, Sync, errors_state, settle, still_owed, tell, with_items
from app.domain.transactions import Counts, count, is_failing

T0 = datetime(2026, 1, 1, 9, tzinfo=UTC)
BLANK = Sync(company_id="c", sync_id="s")


def event(kind: str, minutes: int | None = None, **more: object) -> Event:
    at = T0 + timedelta(minutes=minutes) if minutes is not None else None
    return Event(event=kind, reading="ok", company_id="c", sync_id="s", generated_at=at, **more)  # type: ignore[arg-type]


def told(*kinds: str) -> Sync:
    sync = BLANK
    for kind in kinds:
        sync = tell(sync, event(kind), T0)
    return sync


def said(code: int | None, **more: object) -> CodatStatus:
    return CodatStatus("c", "s", code, **more)  # type: ignore[arg-type]


events = st.builds(
    event,
    st.sampled_from([SYNC_STARTED, SYNC_FAILED, SYNC_COMPLETED]),
    st.none() | st.integers(0, 300),
    failure_stage=st.none() | st.sampled_from(["Pushing", "Mapping"]),
    status=st.none()
    | st.builds(
        said,
        st.sampled_from([1000, 2000, 4000]),
        sync_utc=st.none() | st.integers(0, 9).map(lambda n: T0 + timedelta(hours=n)),
    ),
)


@given(st.lists(events, max_size=6), st.randoms(use_true_random=False))
def test_the_order_and_number_of_events_never_matter(told: list[Event], random: object) -> None:
    """Any permutation with any repetition ends in the same sync."""
    once, shuffled = BLANK, BLANK
    for each in told:
        once = tell(once, each, T0)
    again = told + told[: len(told) // 2]
    random.shuffle(again)  # type: ignore[attr-defined]
    for each in again:
        shuffled = tell(shuffled, each, T0)
    assert shuffled == once


@pytest.mark.parametrize("order", list(permutations([SYNC_STARTED, SYNC_FAILED, SYNC_COMPLETED])))
def test_failed_beats_completed_in_every_order(order: tuple[str, ...]) -> None:
    """As long as only webhooks spoke, one failure makes the sync failed."""
    assert told(*order).state == "failed"


def test_a_late_start_does_not_reopen_a_finished_sync() -> None:
    """A start that arrives after the end changes the start time only."""
    sync = tell(told(SYNC_COMPLETED), event(SYNC_STARTED, 0), T0)
    assert (sync.state, sync.started_at) == ("completed", T0)


def test_a_late_start_without_a_time_says_nothing_of_when_it_was() -> None:
    """An old body has no time of its own: that it came after the end is no start after the end."""
    ended = settle(BLANK, said(2000, sync_utc=T0), asked_at=T0, fresh=False)
    late = tell(ended, event(SYNC_STARTED), T0 + timedelta(minutes=1))
    assert (late.started_at, late.finished_at) == (None, T0)
    early = tell(BLANK, event(SYNC_STARTED), T0 - timedelta(minutes=1))
    ended = settle(early, said(2000, sync_utc=T0), asked_at=T0, fresh=False)
    assert ended.started_at == T0 - timedelta(minutes=1)


def test_codats_status_overrules_what_webhooks_told() -> None:
    """A failure heard before the question is settled by the answer 2000."""
    sync = settle(told(SYNC_FAILED), said(2000), asked_at=T0, fresh=False)
    assert sync.state == "completed"


def test_news_that_came_while_codat_was_asked_is_not_settled_by_the_answer() -> None:
    """A fresh failure stays believed until Codat is asked again."""
    sync = settle(told(SYNC_FAILED), said(2000), asked_at=T0, fresh=True)
    assert sync.state == "failed"


def test_a_failure_after_the_verdict_is_believed_until_asked_again() -> None:
    """Completed by verdict, then a failure by webhook, then the verdict again."""
    sync = settle(told(SYNC_COMPLETED), said(2000), asked_at=T0, fresh=False)
    sync = tell(sync, event(SYNC_FAILED), T0)
    assert sync.state == "failed"
    assert settle(sync, said(5130), asked_at=T0, fresh=False).state == "failed"
    assert settle(sync, said(2000), asked_at=T0, fresh=False).state == "completed"


def test_a_completion_after_a_failed_verdict_does_not_wipe_the_failure() -> None:
    """Completed means finished, not succeeded: only Codat's status can turn a failure."""
    sync = settle(told(SYNC_FAILED), said(5130), asked_at=T0, fresh=False)
    assert tell(sync, event(SYNC_COMPLETED), T0).state == "failed"


def test_a_running_verdict_settles_nothing() -> None:
    """Codat's status may lag behind its own webhook; then it must be asked again."""
    sync = settle(told(SYNC_FAILED), said(1010), asked_at=T0, fresh=False)
    assert sync.state == "failed"
    assert still_owed(sync) is not None


def test_an_older_answer_never_replaces_a_newer_one() -> None:
    """Answers may overtake each other; the later question wins."""
    newer = settle(told(SYNC_FAILED), said(5130), asked_at=T0, fresh=False)
    assert settle(newer, said(2000), asked_at=T0 - timedelta(1), fresh=False) == newer


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
    sync = settle(told(SYNC_COMPLETED), said(code), asked_at=T0, fresh=False)
    items = tuple(Item(str(n), status) for n, status in enumerate(statuses))
    sync = with_items(sync, items, source="codat", expected=len(items), at=T0)
    assert sync.outcome == outcome


def test_a_sync_with_a_failed_item_counts_as_failed_whatever_its_code() -> None:
    """Codat's own rule; the code and the list may disagree for a moment."""
    sync = with_items(
        settle(told(SYNC_COMPLETED), said(2000), asked_at=T0, fresh=False),
        (Item("a", "Completed"), Item("b", "PushError")),
        source="codat",
        expected=2,
        at=T0,
    )
    assert (sync.state, errors_state(sync, "settled")) == ("failed", "fetched")


def test_nothing_is_shown_as_written_before_it_is_proved() -> None:
    """A completed event alone, a status alone, or a webhook's own items prove nothing."""
    completed = told(SYNC_COMPLETED)
    assert completed.outcome == "unknown"
    settled = settle(completed, said(2000), asked_at=T0, fresh=False)
    assert settled.outcome == "unknown"
    inline = with_items(settled, (Item("t", "Completed"),), source="webhook")
    assert inline.outcome == "unknown"


def test_a_sync_in_progress_says_so() -> None:
    """Only a start was heard."""
    sync = told(SYNC_STARTED)
    assert (sync.outcome, errors_state(sync, None), sync.finished_at) == (
        "in_progress",
        "not_needed",
        None,
    )


def fetched(code: int, *statuses: str, expected: int | None = None, steady: bool = True) -> Sync:
    items = tuple(Item(str(n), status) for n, status in enumerate(statuses))
    sync = settle(told(SYNC_FAILED), said(code), asked_at=T0, fresh=False)
    counted = len(items) if expected is None else expected
    return with_items(sync, items, source="codat", expected=counted, steady=steady, at=T0)


def test_errors_are_waited_for_then_fetched() -> None:
    """From the webhook to the recorded list."""
    assert errors_state(told(SYNC_FAILED), "owed") == "waiting"
    assert errors_state(fetched(5130, "PushError"), "settled") == "fetched"


def test_errors_are_given_up_visibly() -> None:
    """A dead fetch never looks like an absent error."""
    assert errors_state(told(SYNC_FAILED), "dead") == "given_up"


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
    assert errors_state(sync, "owed") == "incomplete"
    assert still_owed(sync) is not None


def test_a_clean_sync_needs_no_errors() -> None:
    """Completed, listed, nothing failed."""
    sync = fetched(2000, "Completed")
    assert (errors_state(sync, "settled"), still_owed(sync)) == ("not_needed", None)


def test_a_contradicting_webhook_makes_known_errors_wait_again() -> None:
    """A failure after a clean verdict: what we know may be out of date."""
    sync = tell(fetched(2000, "Completed"), event(SYNC_FAILED), T0)
    assert errors_state(sync, "owed") == "waiting"


def test_codats_own_time_is_the_end_once_it_is_known() -> None:
    """Before that, the earliest terminal event's."""
    sync = tell(tell(BLANK, event(SYNC_FAILED, 30), T0), event(SYNC_FAILED, 20), T0)
    assert sync.finished_at == T0 + timedelta(minutes=20)
    at = T0 + timedelta(minutes=5)
    assert settle(sync, said(5130, sync_utc=at), asked_at=T0, fresh=False).finished_at == at


def test_statuses_are_counted_by_class_and_rows_may_repeat() -> None:
    """Two identical rows are two rows; an unknown status is other."""
    row = Item("t", "PushError", "no", "bankfeeds")
    items = (row, row, Item("u", "completed"), Item("v", "Pending"), Item(None, None))
    assert count(items) == Counts(total=5, completed=1, failed=2, pending=1, other=1)


@pytest.mark.parametrize("status", ["PushError", "ValidationError", "Failed", "failed "])
def test_the_failing_statuses_fail(status: str) -> None:
    """The union of the webhook's and the API's names for a failure."""
    assert is_failing(status)


@pytest.mark.parametrize("status", [None, "", "Completed", "Pending", "Unknown", "Bananas"])
def test_other_statuses_are_not_failures(status: str | None) -> None:
    """A status we do not know is not called a failure."""
    assert not is_failing(status)


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
    late = event(SYNC_FAILED, status=said(4000, sync_utc=T0 + timedelta(hours=1)))
    early = event(SYNC_STARTED, status=said(1000, sync_utc=T0))
    assert tell(tell(BLANK, late, T0), early, T0).status_code == 4000
    asked = settle(BLANK, said(2000, sync_utc=T0), asked_at=T0, fresh=False)
    assert tell(asked, late, T0).status_code == 2000


def test_an_unknown_verdict_is_never_called_a_success() -> None:
    """A code outside every class leaves the outcome unknown and the question open."""
    sync = settle(told(SYNC_COMPLETED), said(3000), asked_at=T0, fresh=False)
    assert (sync.state, sync.outcome) == ("completed", "unknown")
    assert still_owed(sync) is not None
    assert settle(BLANK, said(None), asked_at=T0, fresh=False).outcome == "unknown"


def test_flags_survive_a_round_of_everything() -> None:
    """Hearing is monotone: no answer of Codat's makes us forget that we were told."""
    sync = settle(told(SYNC_FAILED, SYNC_STARTED), said(2000), asked_at=T0, fresh=False)
    assert sync.heard == Heard.FAILED | Heard.STARTED
    assert sync._replace(unsettled=Heard.FAILED).state == "failed"
