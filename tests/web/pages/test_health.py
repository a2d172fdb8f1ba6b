"""Sync health: totals, alerts, search, filters, sorting, paging, and the CSV."""

import re
from datetime import UTC, datetime

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.db import alerts, rate_limit, workers
from app.domain.checks import Misconfiguration
from app.domain.webhook_loss import Finding
from tests.web.pages.html import links, read, read_csv, sync_ids, text
from tests.web.store import NOW, T0, Store, after, completed_row, failed_row

CONNECTED = "Feed Connection failed(409): it is already connected to another Xero Bank Account"
OUTCOMES = {
    "bad": "Failed", "part": "Partly failed", "good": "Written", "none": "Nothing to sync",
    "running": "In progress", "odd": "Unconfirmed",
}  # fmt: skip


@pytest.fixture
def morning(store: Store) -> Store:
    """One sync of each outcome, a minute apart."""
    store.company("c1", "Toft stores")
    store.company("c2", "Old Mill")
    store.failed("bad")
    rows = (failed_row("t2", CONNECTED), completed_row("t3"))
    store.failed("part", rows=rows, at=after(minutes=1))
    store.completed("good", "c2", at=after(minutes=2))
    store.sync("none", "c2", code=2040, rows=(), at=after(minutes=3))
    store.sync("running", at=after(minutes=4))
    store.sync("odd", code=2000, at=after(minutes=5))
    return store


def open_alerts(store: Store, *findings: Finding) -> None:
    with store.database.writing() as connection:
        alerts.sync_alerts(connection, {finding.cause for finding in findings}, findings, T0)


@pytest.mark.parametrize(
    ("query", "heading"),
    [("", "Today: 2 of 6 syncs failed (33%, yesterday 50%)"),
     ("?from=2025-12-26", "Last 7 days: 3 of 8 syncs failed (38%)"),
     ("?from=2025-12-03", "Last 30 days: 3 of 8 syncs failed (38%, the 30 days before 100%)"),
     ("?from=2026-01-01&to=2026-01-01", "2 of 6 syncs failed on 1 Jan 2026 (33%)"),
     ("?from=2025-12-31&to=2026-01-01", "3 of 8 syncs failed from 31 Dec 2025 to 1 Jan 2026"),
     ("?from=2025-12-30", "3 of 8 syncs failed since 30 Dec 2025"),
     ("?to=2025-12-31", "1 of 2 syncs failed until 31 Dec 2025")],
)  # fmt: skip
def test_the_totals_say_how_much_failed(
    morning: Store, user: TestClient, query: str, heading: str
) -> None:
    """Today and yesterday; other periods by one click or by the address."""
    morning.failed("y1", at=after(days=-1))
    morning.completed("y2", at=after(days=-1))
    morning.failed("old", at=after(days=-40))
    html = user.get(f"/{query}").text
    assert heading in text(html)
    assert {"/?from=2025-12-26", "/?from=2025-12-03"} <= set(links(html))
    if query.startswith("?from=2025-12") or not query:
        assert "1 Jan 2026: 6 syncs, 1 failed, 1 partly failed, 1 unconfirmed" in text(html)
        assert "1 Jan 2026 1 1 1 1 1 1 33%" in text(html)
        assert "31 Dec 2025 1 0 0 0 1 0 50%" in text(html)
        assert "/?from=2026-01-01&to=2026-01-01" in links(html)
    else:
        assert "Show as table" not in html


def test_a_morning_without_syncs_shows_yesterday(store: Store, user: TestClient) -> None:
    store.failed("y1", at=after(days=-1))
    page = read(user, "/")
    assert "Today: no syncs (yesterday 1 of 1 sync failed)" in page


@pytest.mark.parametrize(
    "query", ["company_id=c2", "q=toft", "state=started", "status_code=2040", "cause=permission"]
)
def test_unfiltered_totals_do_not_look_like_those_of_a_filtered_list(
    morning: Store, user: TestClient, query: str
) -> None:
    html = user.get(f"/?{query}").text
    assert "Totals for this period (all 6 syncs, unfiltered)" in text(html)
    assert (html.count('class="tile'), html.count('<a class="tile')) == (7, 0)
    assert not links(html, "from=2026-01-01")
    assert user.get("/?from=2026-01-01&outcome=failed").text.count('<a class="tile') == 6


@pytest.mark.parametrize(
    ("query", "found"),
    [("q=part", "part"), ("q=t2", "part"), ("q=toft", "bad part running odd"),
     ("q=c2", "good none"), ("status_code=2040&status_code=5130", "none bad part"),
     ("state=started", "running"), ("outcome=failed&outcome=unknown", "bad odd"),
     ("cause=bank_feed_connected", "part"), ("company_id=c2", "good none"),
     ("from=2026-01-01&to=2026-01-01", " ".join(OUTCOMES)),
     ("q=&from=&to=&state=", " ".join(OUTCOMES)), ("from=2026-01-02", ""), ("q=nothing", "")],
)  # fmt: skip
def test_the_history_is_filtered(morning: Store, user: TestClient, query: str, found: str) -> None:
    html = user.get(f"/?{query}").text
    assert set(sync_ids(html)) == set(found.split())
    assert ("No syncs match." in html) is (not found)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("from=2025-12-31&to=2025-12-31&tz=America/Los_Angeles", "early"),
        ("from=2026-01-01&to=2026-01-01&tz=Australia/Sydney", "early late"),
        ("from=2026-01-02&tz=Australia/Sydney", "later"),
        ("to=2025-12-31&tz=Asia/Kathmandu", ""),
        ("from=2026-01-01&to=2026-01-01", "early late later"),
        ("from=2026-01-01&to=2026-01-01&tz=UTC", "early late later"),
        ("from=2026-01-01T12:00:00Z&tz=Australia/Sydney", "late later"),
    ],
)
def test_days_are_those_of_the_zone_in_the_address(
    store: Store, user: TestClient, query: str, found: str
) -> None:
    store.failed("early", at=datetime(2026, 1, 1, 7, tzinfo=UTC))  # 18:00 in Sydney
    store.failed("late", at=datetime(2026, 1, 1, 12, 59, 59, tzinfo=UTC))
    store.failed("later", at=datetime(2026, 1, 1, 13, tzinfo=UTC))  # midnight in Sydney
    html = user.get(f"/?{query}").text
    assert set(sync_ids(html)) == set(found.split())
    link, _ = links(html, "/syncs.csv")
    assert read_csv(user, link, "sync_id") == set(found.split())
    assert all("tz=" in link for link in links(html, "sort=")) == ("tz=" in query)


def test_a_page_shows_times_in_the_zone_of_its_address(store: Store, user: TestClient) -> None:
    pk = store.failed()
    store.log(pk, "x", at=T0)
    assert "Times and days: UTC." in user.get("/").text
    html = user.get("/?from=2026-01-01&tz=Australia/Sydney").text
    assert "Times and days: Australia/Sydney (AEDT)." in html
    assert '<html lang="en" data-zone="Australia/Sydney">' in html
    assert "1 Jan 2026, 20:00:00 AEDT" in read(user, "/syncs/s1?tz=Australia/Sydney")
    for zone in ("Mars/Base", "../etc/passwd", "x" * 300, "/", "Australia"):
        assert "Time zone: use a name such as Australia/Sydney." in read(user, f"/?tz={zone}", 422)


@pytest.mark.own_database
def test_the_chart_counts_the_days_of_the_zone_in_the_address(
    store: Store, user: TestClient
) -> None:
    """One evening in UTC is two days in Sydney. Each bar leads to its day there."""
    store.failed("evening", at=datetime(2025, 12, 30, 12, tzinfo=UTC))
    store.completed("night", at=datetime(2025, 12, 30, 14, tzinfo=UTC))
    period = "/?from=2025-12-03"
    assert "Show as table" not in user.get(period).text
    html = user.get(f"{period}&tz=Australia/Sydney").text
    assert "Syncs per day:" in text(html)
    for day, found in ("2025-12-30", "evening"), ("2025-12-31", "night"):
        bar = f"/?from={day}&to={day}&tz=Australia%2FSydney"
        assert html.count(f'href="{bar.replace("&", "&amp;")}"') == 2
        assert sync_ids(user.get(bar).text) == [found]
    store.completed("next", at=datetime(2025, 12, 31, 14, tzinfo=UTC))
    assert "Syncs per day (UTC):" in text(user.get(period).text)


def test_empty_fields_of_a_form_leave_the_address(morning: Store, user: TestClient) -> None:
    response = user.get("/?q=&from=&outcome=failed&outcome=unknown&to=%20", follow_redirects=False)
    assert response.status_code == 303
    assert response.headers["location"] == "/?outcome=failed&outcome=unknown"


def test_a_search_says_whether_an_expense_is_in_the_books(morning: Store, user: TestClient) -> None:
    morning.failed("again", rows=(failed_row("t2", CONNECTED),), at=after(hours=1))
    morning.failed("other", "c2", rows=(failed_row("t2"),), at=after(hours=2))
    morning.completed("late", "c2", rows=(completed_row("t2"),), at=after(hours=3))
    html = user.get("/?q=t2").text
    page = text(html)
    assert "Expense t2 (Toft stores): Not in the books: Bank account already connected" in page
    assert "Expense t2 (Old Mill): In the books. View" in page
    assert "/companies/c1/transactions/t2" in links(html)
    assert "Expense t2" not in read(user, "/?q=part")


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("q=t2", "/companies/c1/transactions/t2"),
        ("q=t3", "/companies/c1/transactions/t3"),
        ("q=part", "/syncs/part?company_id=c1"),
        ("q=5f206e84-0000", "/companies/c2/transactions/5f206e84-0000-4a53-9d7e-0c6a7a1f0e11"),
        ("q=5F206E84", "/companies/c2/transactions/5f206e84-0000-4a53-9d7e-0c6a7a1f0e11"),
        ("q=aaaaaaaa", "/companies/c1/transactions/wrapped"),
        ("q=toft", None), ("q=c2", None), ("q=good&outcome=all_written", None), ("q=same", None),
        ("q=nothing", None), ("q=t1", None),
    ],
)  # fmt: skip
def test_a_search_with_one_hit_opens_the_answer(
    morning: Store, user: TestClient, query: str, answer: str | None
) -> None:
    long_id = "5f206e84-0000-4a53-9d7e-0c6a7a1f0e11"
    message = (
        "An error occurred in a downstream service. Correlation ID: "
        "aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb. Message: Closed"
    )
    morning.failed("more", "c2", rows=(failed_row(long_id),), at=after(hours=1))
    morning.failed("wrapped-sync", rows=(failed_row("wrapped", message),), at=after(hours=2))
    morning.failed("same", "c1", rows=(failed_row("same"),), at=after(hours=3))
    response = user.get(f"/?{query}", follow_redirects=False)
    assert response.headers.get("location") == answer
    if answer:
        assert user.get(answer).status_code == 200


def test_each_row_says_why_and_how_many_items_failed(morning: Store, user: TestClient) -> None:
    page = read(user, "/")
    assert (
        "! Partly failed Toft stores part Bank account already connected to a feed 1 of 2 " in page
    )
    assert "Status Company Why Failed Finished" in page
    morning.job(morning.failed("waits", rows=None))
    morning.failed("whole", code=4260, rows=())
    page = read(user, "/")
    assert re.search(r"✕ Failed Toft stores waits .+ Waiting for Codat – 1 Jan", page)
    assert re.search(r"✕ Failed Toft stores whole .+ – \(whole sync failed\)", page)


def test_columns_are_chosen_in_the_address(morning: Store, user: TestClient) -> None:
    query = "/?outcome=failed&column=status_code&column=company&column=started&limit=50"
    html = user.get(query).text
    assert "Company Status code Started Toft stores bad 5130 Data write error" in text(html)
    assert "Why" not in text(html).split("History")[1].split("Rows per page")[1]
    for link in links(html, "sort="):
        assert "column=status_code&column=company&column=started" in link
    assert not [link for link in links(html, "/syncs.csv") if "column" in link]
    assert "Columns: use status, company" in read(user, "/?column=salary", 422)


def test_each_filter_is_a_chip_that_removes_it(morning: Store, user: TestClient) -> None:
    query = "outcome=failed&outcome=partly_failed&from=2026-01-01&tz=Europe/Paris&company_id=c1"
    html = user.get(f"/?{query}&cause=permission&state=failed&status_code=5130&q=toft").text
    page = text(html)
    for chip in ("Since 1 Jan 2026 ×", "Failed ×", "Partly failed ×", "Company: Toft stores ×",
                 "Cause: ", "Finished with errors ×", "Status code 5130 ×",
                 "Search: toft ×"):  # fmt: skip
        assert chip in page
    html = user.get(f"/?{query}").text
    assert "2 syncs" in text(html)
    chips = {link for link in links(html) if link.startswith("/?") and "sort" not in link}
    assert "/?outcome=failed&from=2026-01-01&tz=Europe%2FParis&company_id=c1" in chips
    assert "/?outcome=failed&outcome=partly_failed&company_id=c1" in chips


def test_the_history_pages_back_and_forth(morning: Store, user: TestClient) -> None:
    for sort in ("started_at", "-started_at", "finished_at", "-status_code", "company_id"):
        pages, following = [], [f"/?limit=2&sort={sort}"]
        while following:
            html = user.get(following[0]).text
            pages.append(sync_ids(html))
            following = links(html, "cursor=")
        back = []
        previous = links(html, "before=")
        while previous:
            html = user.get(previous[0]).text
            back.append(sync_ids(html))
            assert links(html, "cursor=")
            previous = links(html, "before=")
        assert back[::-1] == pages[:-1], sort


def test_headings_sort_down_and_up_and_keep_the_filters(morning: Store, user: TestClient) -> None:
    html = user.get("/?outcome=failed&outcome=partly_failed&sort=-finished_at").text
    assert sync_ids(html) == ["part", "bad"]
    assert 'aria-sort="descending"' in html
    (ascending,) = links(html, "sort=finished_at")
    assert sync_ids(user.get(ascending).text) == ["bad", "part"]


def test_the_history_is_paged_without_gaps(morning: Store, user: TestClient) -> None:
    found: list[str] = []
    following = ["/?limit=2&sort=started_at"]
    while following:
        html = user.get(following[0]).text
        found += sync_ids(html)
        following = [link for link in links(html, "cursor=") if ".csv" not in link]
    assert found == list(OUTCOMES)
    assert "/?limit=2&sort=started_at" in links(html)
    assert "End of list." in html


def test_the_csv_has_all_rows_of_the_filters(morning: Store, user: TestClient) -> None:
    html = user.get("/?outcome=partly_failed&outcome=failed&limit=1").text
    link, semicolons = links(html, "/syncs.csv")
    assert read_csv(user, link, "sync_id") == {"bad", "part"}
    assert read_csv(user, semicolons, "sync_id", ";") == {"bad", "part"}
    assert user.get(link).content.startswith(b"\xef\xbb\xbfcompany_id,")


def test_what_is_failing_now_comes_before_the_history(store: Store, user: TestClient) -> None:
    """Five causes at most, those with the most open items first, and who cannot sync."""
    store.company("c1", "Toft stores")
    store.company("c2", "Old Mill")
    messages = ("The account is inactive", "The period is closed", "Tax rate is required", "Oops",
                "Duplicate document number", "Contact not found")  # fmt: skip
    number = 0
    for place, message in enumerate(messages):
        count = 7 - place
        rows = tuple(failed_row(f"t{number + n}", message) for n in range(count))
        store.failed(f"s{place}", rows=rows, at=after(hours=-place))
        number += count
    store.failed("more", "c3", rows=(failed_row("t", "The account is inactive"),), at=T0)
    store.failed("whole", "c2", code=4260, rows=(), at=after(minutes=-30))
    open_alerts(store, Finding("webhooks_lost", "c1", "No webhooks since 1 Jan"))
    html = user.get("/").text
    page = text(html)
    assert "No webhooks since 1 Jan (opened 1 Jan, 09:00) · Toft stores" in page
    first = "Account inactive Customer 8 open items: Account inactive 2 companies"
    assert page.index("Needs attention") < page.index("Failing now") < page.index(first)
    assert page.index(first) < page.index("History")
    assert page.index("6 open items: Accounting period closed") > page.index(first)
    assert "All 6 causes" in page
    assert (
        "Cannot sync Old Mill Accounting software subscription ended, first failed 1 Jan, 08:30"
        in page
    )
    assert "/causes/account_inactive#companies" in links(html)
    assert "worker running · Codat answers · no webhooks waiting" in page


def test_every_page_has_a_line_about_the_service(store: Store, user: TestClient) -> None:
    store.event("m1", received_at=after(hours=2))
    pk = store.failed()
    for path in ("/", "/?q=s1x", "/companies", "/causes", "/events", "/syncs/s1", "/companies/c1"):
        assert user.get(path).text.count('class="service') == 1, path
    html = user.get("/companies").text
    assert "1 h ago" in html
    store.job(pk, attempts=2, last_error="Cannot connect to Codat (ConnectError)")
    assert "Cannot connect to Codat (ConnectError)" in user.get("/causes").text
    with store.database.writing() as connection:
        rate_limit.pause(connection, after(hours=9), "Rate limit", NOW)
        workers.remove(connection, "w1")
    html = user.get("/causes").text
    assert "calls to Codat paused" in html
    assert "no worker running" in html


@pytest.mark.parametrize("query", ["q=zzz", "limit=1"])
def test_filtered_and_later_pages_only_count_the_alerts(
    morning: Store, user: TestClient, query: str
) -> None:
    open_alerts(morning, *(Finding("push_error:permission", f"c{n}", "x") for n in "12"))
    html = user.get(f"/?{query}").text
    if query == "limit=1":
        assert "Failing now" in html
        html = user.get(links(html, "cursor=")[0]).text
    assert "Failing now" not in html
    assert "1 open alert" in text(html)


def test_an_empty_service_shows_a_checklist_that_ticks_itself(
    store: Store, app: FastAPI, user: TestClient
) -> None:
    page = read(user, "/")
    assert "No syncs yet." in page
    assert "To do: Add this endpoint in the Codat Portal: http://testserver/webhooks/codat" in page
    assert "Done: A worker is running" in page
    assert "expenses.sync.unsuccessful" in page
    assert "To do: Wait for the first webhook, or try it with a sample: python -m app send" in page
    assert "/setup/codat" in links(user.get("/").text)
    store.event("m1", parse_status="unknown")
    page = read(user, "/")
    assert "✓ Done: Add this endpoint in the Codat Portal" in page
    assert "✓ Done: The first webhook has arrived" in page
    assert "Set up this service" not in read(user, "/?q=nothing")
    store.failed()
    assert "Set up this service" not in read(user, "/")
    assert "No webhooks need review." not in read(user, "/events")


@pytest.mark.parametrize(
    ("name", "key_line"),
    [
        (None, "✓ Done: Codat accepts the API key"),
        ("codat_key_refused", "Codat does not accept the API key"),
        ("endpoint_missing", "✓ Done: Codat accepts the API key"),
    ],
)
def test_the_checklist_has_the_findings_of_the_doctor(
    store: Store, app: FastAPI, user: TestClient, name: str | None, key_line: str
) -> None:
    if name:
        app.state.codat.findings.append(Misconfiguration(name, "It is wrong.", "Correct it."))
    page = read(user, "/setup/codat")
    assert key_line in page
    assert ("✕ Problem: It is wrong. Correct it." in page) is bool(name)
    assert ("The endpoint is set up at Codat" in page) is not bool(name)


def test_pages_say_when_webhooks_wait_to_be_processed(store: Store, user: TestClient) -> None:
    store.company("c1", "Toft stores")
    store.failed()
    store.event("m1", received_at=after(hours=2), processed_at=None)
    store.event("m2", received_at=NOW, processed_at=None)
    notice = "2 webhooks received, waiting to be processed (since 1 Jan 2026, 11:00:00 UTC)."
    for path in ("/", "/syncs/s1", "/companies", "/companies/c1", "/companies/c1/transactions/t1",
                 "/causes", "/causes/account_inactive", "/events"):  # fmt: skip
        assert notice in read(user, path)


def test_pages_say_when_no_worker_is_running(store: Store, user: TestClient) -> None:
    store.failed()
    store.event("m1", received_at=NOW, processed_at=None)
    page = read(user, "/syncs/s1")
    assert "Updates have stopped" not in page
    assert "waiting to be processed" not in page  # it has just arrived
    with store.database.writing() as connection:
        workers.beat(connection, "w1", T0)
    page = read(user, "/syncs/s1")
    assert "no worker has run since 1 Jan 2026, 09:00:00 UTC. Contact your administrator." in page
    with store.database.writing() as connection:
        workers.remove(connection, "w1")
    assert "Updates have stopped: no worker is running." in read(user, "/")


@pytest.mark.parametrize(
    ("dates", "reason"),
    [("from=2026-01-03&to=2026-01-01", "“To” must not be before “From”."),
     ("from=2026-01-03&to=2026-01-02", "“To” must not be before “From”."),
     ("from=yesterday", "From: use a date such as 2026-01-31")],
)  # fmt: skip
def test_wrong_dates_are_reported_beside_their_fields(
    morning: Store, user: TestClient, dates: str, reason: str
) -> None:
    page = user.get(f"/?{dates}&q=toft")
    assert page.status_code == 422
    assert reason in text(page.text)
    assert f'value="{dates[5:15].split("&")[0]}"' in page.text
    assert 'value="toft"' in page.text
    assert sync_ids(page.text) == []
