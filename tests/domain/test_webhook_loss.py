"""Lost webhooks or a quiet company, by Codat's clock; and until when a replay helps."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.webhook_loss import (
    Endpoint,
    FinishedSync,
    check_endpoints,
    find_lost_webhooks,
    next_deadline,
    usual_gap,
)

NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)
URL = "https://us.example/webhooks/codat"
BOTH = ("SyncFailed", "expenses.sync.successful")


def hours_ago(*hours: float, reported: bool = True) -> list[FinishedSync]:
    return [FinishedSync(NOW - timedelta(hours=hour), reported) for hour in hours]


def test_the_usual_gap_is_three_times_the_median_and_at_least_an_hour() -> None:
    """One long weekend does not change it."""
    assert usual_gap([NOW + timedelta(hours=h) for h in (0, 4, 8, 12, 90)]) == timedelta(hours=12)
    assert usual_gap([NOW + timedelta(minutes=m) for m in range(9)]) == timedelta(hours=1)
    assert usual_gap([]) == usual_gap([NOW]) == timedelta(hours=1)


def test_a_quiet_company_is_no_finding() -> None:
    """No webhook for days, and Codat lists nothing new either."""
    assert find_lost_webhooks("c1", hours_ago(99, 100, 101), NOW) is None
    assert find_lost_webhooks("c1", [], NOW) is None


def test_no_webhooks_while_codat_lists_new_syncs_is_a_loss() -> None:
    """The finding says since when, how many, and until when a replay helps."""
    recent = hours_ago(20, 21, 22) + hours_ago(3, 2, reported=False)
    found = find_lost_webhooks("c1", recent, NOW)
    assert found is not None
    assert (found.cause, found.company_id) == ("webhooks_lost", "c1")
    assert found.text == (
        "No webhooks since 2026-01-30 13:00 UTC, but Codat lists 2 newer syncs. Replay from "
        "2026-01-30 13:00 UTC in the Codat Portal: Codat's own retries end at 2026-01-31 16:35 UTC."
    )


@pytest.mark.parametrize(
    "recent",
    [
        hours_ago(20, 21) + hours_ago(0.4, reported=False),
        hours_ago(4, 8, 12) + hours_ago(3, reported=False),
        hours_ago(1, 30) + hours_ago(29, reported=False),
    ],
    ids=["may still come", "within the usual gap", "an old one, and reported since"],
)
def test_what_may_still_come_or_is_over_is_no_finding(recent: list[FinishedSync]) -> None:
    """False alarms make people ignore alarms."""
    assert find_lost_webhooks("c1", recent, NOW) is None


def test_a_company_that_was_never_reported_is_a_loss_from_its_first_sync() -> None:
    """The endpoint may never have worked."""
    found = find_lost_webhooks("c1", hours_ago(50, 40, reported=False), NOW)
    assert found is not None
    assert "since 2026-01-29 07:00 UTC" in found.text


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        (timedelta(hours=27), "own retries end at"),
        (timedelta(hours=28), "disables the endpoint at"),
        (timedelta(days=6), "can no longer replay from then at"),
        (timedelta(days=15), "too late for a replay"),
    ],
)
def test_the_next_deadline_of_a_gap_is_named(passed: timedelta, text: str) -> None:
    """Before 28 hours, 5 days, 2 weeks; and after."""
    assert text in next_deadline(NOW - passed, NOW)


def causes(*endpoints: Endpoint, webhook_url: str | None = None) -> list[str]:
    return [finding.cause for finding in check_endpoints(endpoints, webhook_url)]


def test_a_good_endpoint_is_no_finding() -> None:
    """With names of either generation, on one endpoint or several, with or without a slash."""
    assert causes(Endpoint(URL, False, BOTH)) == []
    assert causes(Endpoint(URL, False, BOTH[:1]), Endpoint(URL + "/", False, BOTH[1:])) == []
    assert causes(Endpoint(URL, False, ())) == []


def test_missing_disabled_and_partly_subscribed_endpoints_are_findings() -> None:
    """Each by its name; other endpoints do not count, nor do invalid URLs."""
    other = Endpoint("https://us.example/other", True, ())
    invalid = Endpoint("https://[half/webhooks/codat", False, BOTH)
    assert causes(other, invalid) == ["endpoint_missing"]
    assert causes(Endpoint(URL, True, BOTH), other) == ["endpoint_disabled"]
    assert causes(Endpoint(URL, False, ("SyncCompleted", "connection.created"))) == [
        "event_types_missing"
    ]
    (finding,) = check_endpoints([Endpoint(URL, False, ("SyncCompleted",))], None)
    assert finding.text == "The Codat endpoint is not subscribed to: sync failed"


@pytest.mark.parametrize(
    "url",
    [
        URL, f"{URL}/", "https://US.example:443/webhooks/codat", "https://us.example./webhooks/codat",
        "https://user:pw@us.example/webhooks/codat?x=1",
    ],
)  # fmt: skip
def test_the_known_address_is_ours_in_every_form_that_reaches_it(url: str) -> None:
    """An endpoint of another environment beside it raises no alarm."""
    other = Endpoint("https://staging.us.example/webhooks/codat", True, ())
    assert causes(Endpoint(url, False, BOTH), other, webhook_url=URL) == []


@pytest.mark.parametrize(
    "url",
    [
        "https://staging.us.example/webhooks/codat", "https://us.example/staging/webhooks/codat",
        "https://us.example//webhooks/codat", "https://us.example/Webhooks/codat", f"{URL}//",
        "https://us.example:8443/webhooks/codat", "http://us.example/webhooks/codat",
        "https://us.example:x/webhooks/codat", f"{URL}/x",
    ],
)  # fmt: skip
def test_another_address_does_not_hide_that_the_known_one_is_missing(url: str) -> None:
    (finding,) = check_endpoints([Endpoint(url, False, BOTH)], URL)
    assert finding.text == f"Codat has no webhook endpoint with the address {URL}"
    assert causes(Endpoint(url, True, BOTH), webhook_url=URL) == ["endpoint_missing"]


@pytest.mark.parametrize(
    "url",
    ["https://us.example//webhooks/codat", f"{URL}//", "https://us.example/a//webhooks/codat"],
)
def test_a_path_that_the_endpoint_does_not_accept_is_not_ours(url: str) -> None:
    assert causes(Endpoint(url, False, BOTH)) == ["endpoint_missing"]
