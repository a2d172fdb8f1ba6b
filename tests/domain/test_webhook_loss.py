"""Loss is told from quiet by Codat's clock; and until when a replay helps."""

from datetime import datetime, timedelta

import pytest

from app.domain.webhook_loss import (
    Endpoint,
    Heard,
    endpoint_findings,
    habit,
    lost_webhooks,
    next_mark,
)
from tests.reports import after

NOW = after(days=30)
DOOR = "https://us.example/webhooks/codat"
BOTH = ("SyncFailed", "expenses.sync.successful")


def hours_ago(*hours: float, told: bool = True) -> list[Heard]:
    return [Heard(NOW - timedelta(hours=each), told) for each in hours]


def test_a_habit_is_three_times_the_middle_gap_and_at_least_an_hour() -> None:
    """One long week-end does not make a habit."""
    assert habit([after(hours=h) for h in (0, 4, 8, 12, 90)]) == timedelta(hours=12)
    assert habit([after(minutes=m) for m in range(9)]) == timedelta(hours=1)
    assert habit([]) == habit([NOW]) == timedelta(hours=1)


def test_quiet_is_no_finding() -> None:
    """Nobody told anything for days, and Codat lists nothing new either."""
    assert lost_webhooks("c1", hours_ago(99, 100, 101), NOW) is None
    assert lost_webhooks("c1", [], NOW) is None


def test_silence_while_codat_lists_news_is_loss() -> None:
    """The finding says since when, how many, and until when a replay helps."""
    recent = hours_ago(20, 21, 22) + hours_ago(3, 2, told=False)
    found = lost_webhooks("c1", recent, NOW)
    assert found is not None
    assert (found.cause, found.company_id) == ("webhooks_lost", "c1")
    for said in ("2 syncs", "since 2026-01-30 13:00 UTC", "retries end at 2026-01-31 16:35 UTC"):
        assert said in found.text


@pytest.mark.parametrize(
    "recent",
    [
        hours_ago(20, 21) + hours_ago(0.4, told=False),
        hours_ago(4, 8, 12) + hours_ago(3, told=False),
        hours_ago(1, 30) + hours_ago(29, told=False),
    ],
    ids=["may still come", "within the habit", "an old one, and told again since"],
)
def test_what_may_still_come_or_is_over_is_no_finding(recent: list[Heard]) -> None:
    """An alarm that cries wolf is switched off."""
    assert lost_webhooks("c1", recent, NOW) is None


def test_a_company_that_was_never_told_about_is_loss_from_its_first_sync() -> None:
    """The endpoint may never have worked."""
    found = lost_webhooks("c1", hours_ago(50, 40, told=False), NOW)
    assert found is not None
    assert "since 2026-01-29 07:00 UTC" in found.text


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        (timedelta(hours=27), "own retries end at"),
        (timedelta(hours=28), "disables the endpoint at"),
        (timedelta(days=6), "no longer reaches back at"),
        (timedelta(days=15), "too late for a replay"),
    ],
)
def test_the_next_limit_of_a_gap_is_named(passed: timedelta, said: str) -> None:
    """Before 28 hours, 5 days, 2 weeks; and after."""
    assert said in next_mark(NOW - passed, NOW)


def causes(*endpoints: Endpoint) -> list[str]:
    return [finding.cause for finding in endpoint_findings(endpoints)]


def test_a_good_endpoint_is_no_finding() -> None:
    """In either generation of names, on one endpoint or several, with or without a slash."""
    assert causes(Endpoint(DOOR, False, BOTH)) == []
    assert causes(Endpoint(DOOR, False, BOTH[:1]), Endpoint(DOOR + "/", False, BOTH[1:])) == []
    assert causes(Endpoint(DOOR, False, ())) == []


def test_a_missing_a_disabled_and_a_deaf_endpoint_are_found() -> None:
    """Each by its name; somebody else's endpoint is none of ours."""
    other = Endpoint("https://us.example/other", True, ())
    assert causes(other) == ["endpoint_missing"]
    assert causes(Endpoint(DOOR, True, BOTH), other) == ["endpoint_disabled"]
    assert causes(Endpoint(DOOR, False, ("SyncCompleted", "connection.created"))) == [
        "event_types_missing"
    ]
    (deaf,) = endpoint_findings([Endpoint(DOOR, False, ("SyncCompleted",))])
    assert "failed" in deaf.text
    assert "completed" not in deaf.text


def test_times_in_texts_are_utc() -> None:
    """Whoever reads them may be anywhere."""
    assert datetime.fromisoformat("2026-01-31T09:00:00+00:00") == NOW
    assert "UTC" in next_mark(NOW, NOW)


def test_an_address_that_is_none_is_not_ours() -> None:
    """Codat lists what somebody typed."""
    assert causes(Endpoint("https://[half/webhooks/codat", False, BOTH)) == ["endpoint_missing"]
