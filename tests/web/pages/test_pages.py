"""The pages: what they say of what is known, of what is not known, and of what went wrong."""

import csv
import io
import re
from html import unescape
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, SecretStr

from app.db import alerts
from app.db.engine import Database
from app.domain.models import Item
from app.domain.webhook_loss import Finding
from app.errors import CodatUnavailable, StorageUnavailable
from app.web.api.query_params import CauseQuery, CompanyQuery, SyncQuery
from app.web.pages.errors import FIELDS
from app.web.pages.query_params import KeptQuery, SyncPageQuery
from tests.web.people import form_token
from tests.web.shelf import T0, Shelf, after, done_item, failed_item

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
WRAPPED = (
    "An error occurred in a downstream service. Correlation ID: "
    "aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb. Message:  Account code '429' is not active."
)


def text(html: str) -> str:
    """What a person reads of a page: no tags, single blanks."""
    body = re.sub(r"(?s).*<main[^>]*>|</main>.*", "", html)
    told = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))
    return re.sub(r" ([.,:;])", r"\1", told)


def read(reader: TestClient, path: str, status: int = 200) -> str:
    answer = reader.get(path)
    assert answer.status_code == status, answer.text
    return text(answer.text)


def links(html: str) -> list[str]:
    return [unescape(found) for found in re.findall(r'href="([^"]*)"', html)]


CONNECTED = "Feed Connection failed(409): it is already connected to another Xero Bank Account"


def a_morning(shelf: Shelf) -> None:
    """One sync of each outcome, a minute apart."""
    shelf.company("c1", "Toft stores")
    shelf.company("c2", "Old Mill")
    shelf.failed("bad")
    shelf.failed("part", items=(failed_item("t2", CONNECTED), done_item("t3")), at=after(minutes=1))
    shelf.done("good", "c2", at=after(minutes=2))
    shelf.sync("none", "c2", code=2040, items=(), at=after(minutes=3))
    shelf.sync("running", at=after(minutes=4))
    shelf.sync("odd", code=2000, at=after(minutes=5))


OUTCOMES = {
    "bad": "Failed", "part": "Partly failed", "good": "All written", "none": "Nothing to write",
    "running": "In progress", "odd": "Not known yet",
}  # fmt: skip


def test_the_first_page_counts_syncs_by_outcome_and_by_day(
    shelf: Shelf, reader: TestClient
) -> None:
    """Every outcome has a total in words, and the chart's numbers stand in a table too."""
    a_morning(shelf)
    told = read(reader, "/")
    assert "6 syncs of all companies in the last 30 days" in told
    for title in OUTCOMES.values():
        assert re.search(rf" 1 \S+ {title} ", told), title
    assert "2026-01-01: 6 syncs, 1 failed, 1 partly failed, 1 not known yet" in told
    assert "2026-01-01 1 1 1 1 1 1" in told


@pytest.mark.parametrize(
    "asked", ["company_id=c2", "q=toft", "state=started", "status_code=2040", "cause=permission"]
)
def test_totals_that_know_no_filter_do_not_look_like_those_of_the_filtered_list(
    shelf: Shelf, reader: TestClient, asked: str
) -> None:
    """They are folded away, say what they count, and lead nowhere; days and outcomes do."""
    a_morning(shelf)
    html = reader.get(f"/?{asked}").text
    assert "All syncs in this range: 6 syncs of all companies" in text(html)
    assert 'class="tile' in html
    assert '<a class="tile' not in html
    assert not [each for each in links(html) if "from=2026-01-01" in each]
    whole = reader.get("/?from=2026-01-01&outcome=failed").text
    assert "All syncs in this range" not in whole
    assert whole.count('<a class="tile') == len(OUTCOMES)


def test_the_page_says_in_which_zone_its_days_are(reader: TestClient) -> None:
    """Times may be the reader's own; days to filter by are not."""
    html = reader.get("/").text
    assert "From (UTC)" in html
    assert "To (UTC)" in html
    assert "Days, in filters and in the chart, are UTC." in unescape(html)


@pytest.mark.parametrize("sync_id", OUTCOMES)
def test_every_outcome_has_its_own_words_and_only_the_proved_one_is_green(
    shelf: Shelf, reader: TestClient, sync_id: str
) -> None:
    """Nothing that is not known yet looks like a success."""
    a_morning(shelf)
    html = reader.get(f"/syncs/{sync_id}").text
    verdict = re.search(r'class="card verdict (\w+)"', html)
    assert verdict
    assert f" {OUTCOMES[sync_id]} " in text(html)
    assert (verdict[1] == "good") is (sync_id == "good")


def test_what_is_not_known_is_said_and_never_left_blank(shelf: Shelf, reader: TestClient) -> None:
    """A failed sync without its list: when Codat is asked next, and why it has not answered."""
    number = shelf.failed(items=None)
    shelf.fetch(number, due=after(hours=4), attempts=2, last_error="Codat said 503")
    told = read(reader, "/syncs/s1")
    assert "Codat has not answered yet; next try at 1 Jan 2026, 13:00:00 UTC." in told
    assert "The last of 2 attempts ended with: Codat said 503." in told
    assert "Which of its items did not reach the accounting software is not known yet" in told
    assert "The items are not known yet." in told
    assert "Items failed not known yet" in told
    assert "Nothing can be retried yet" in told
    assert "Codat has not answered yet" in read(reader, "/")


@pytest.mark.parametrize(
    ("fetch", "more", "told"),
    [
        ({"state": "settled"}, {}, "Codat's whole list, as of 1 Jan 2026, 09:00:00 UTC"),
        ({"due": T0, "token": "x"}, {"items_complete": False, "expected": 9},
         "Codat counts 9 items but 1 came so far"),
        ({"state": "dead", "attempts": 12, "last_error": "Codat refused the key"}, {"items": None},
         "Given up after 12 attempts because Codat refused the key"),
    ],
)  # fmt: skip
def test_a_page_says_how_much_of_the_list_is_known(
    shelf: Shelf, reader: TestClient, fetch: dict[str, Any], more: dict[str, Any], told: str
) -> None:
    """Whole, partly, or given up; each with its reason."""
    shelf.fetch(shelf.failed(**more), **fetch)
    assert told in read(reader, "/syncs/s1")


def test_a_sync_shows_each_item_with_why_it_failed(shelf: Shelf, reader: TestClient) -> None:
    """The plain message first, Codat's whole one beside it; the correlation id; the cause."""
    shelf.company("c1", "Toft stores")
    number = shelf.failed(items=(failed_item("t1", WRAPPED), done_item("t2")))
    shelf.note(number, T0, reason="Codat says 5130")
    told = read(reader, "/syncs/s1")
    assert "1 of 2 items did not reach the accounting software; 1 did." in told
    assert "Account code '429' is not active. Codat's whole message An error occurred" in told
    assert "Correlation ID corr-t1" in told
    assert "The account is inactive" in told
    assert "t2 expenses none ✓ In the books" in told
    assert "Asked Codat Codat says 5130" in told
    assert "Status code 5130 Data write error" in told


def test_items_are_searched_and_filtered_and_paged(shelf: Shelf, reader: TestClient) -> None:
    """By part of an id or message, by status, failed ones only; and onwards from page to page."""
    items = (failed_item("alpha", "Tax rate"), done_item("beta"), failed_item("gamma", "Closed"))
    shelf.failed(items=items)
    assert "beta" not in read(reader, "/syncs/s1?failed=true")
    only = read(reader, "/syncs/s1?q=tax&status=pusherror")
    assert "alpha" in only
    assert "gamma" not in only
    assert "No item fits these filters" in read(reader, "/syncs/s1?status=Pending")
    first = reader.get("/syncs/s1?limit=2").text
    (onwards,) = [link for link in links(first) if "cursor=" in link]
    second = read(reader, onwards)
    assert "gamma" in second
    assert "alpha" not in second
    assert "This is the last page" in second


def test_a_sync_id_of_two_companies_asks_whose(shelf: Shelf, reader: TestClient) -> None:
    """The lists' links say so already."""
    shelf.failed("same", "c1")
    shelf.done("same", "c2")
    assert "There are two of these" in read(reader, "/syncs/same", 409)
    assert "All written" in read(reader, "/syncs/same?company_id=c2")
    found = links(reader.get("/?q=same").text)
    assert {"/syncs/same?company_id=c1", "/syncs/same?company_id=c2"} <= set(found)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=part", {"part"}),
        ("q=t2", {"part"}),
        ("q=corr-t2", {"part"}),
        ("q=toft", {"bad", "part", "running", "odd"}),
        ("q=c2", {"good", "none"}),
        ("status_code=2040", {"none"}),
        ("status_code=2040&status_code=5130", {"none", "bad", "part"}),
        ("state=started", {"running"}),
        ("outcome=failed&outcome=unknown", {"bad", "odd"}),
        ("cause=bank_feed_connected", {"part"}),
        ("company_id=c2", {"good", "none"}),
        ("from=2026-01-01&to=2026-01-01", set(OUTCOMES)),
        ("from=2026-01-02", set()),
        ("q=&from=&to=&outcome=part", None),
        ("q=nothing-like-it", set()),
    ],
)
def test_the_history_is_searched_and_filtered(
    shelf: Shelf, reader: TestClient, query: str, found: set[str] | None
) -> None:
    """One address says it all; a form's empty fields count as not given."""
    a_morning(shelf)
    answer = reader.get(f"/?{query}")
    if found is None:
        assert answer.status_code == 422
        return
    shown = {link.split("/")[2].split("?")[0] for link in links(answer.text) if "/syncs/" in link}
    assert shown == found
    assert ("No sync fits these filters" in answer.text) is (not found)


@pytest.mark.parametrize("asked", ["t2", "corr-t2"])
def test_a_search_for_an_expense_leads_to_whether_it_reached_the_books(
    shelf: Shelf, reader: TestClient, asked: str
) -> None:
    """By its own id or its correlation id, once however often it was tried, in every company."""
    a_morning(shelf)
    shelf.failed("again", items=(failed_item("t2"),), at=after(hours=1))
    shelf.failed("other", "c2", items=(failed_item("t2"),), at=after(hours=2))
    html = reader.get(f"/?q={asked}").text
    told = text(html)
    assert told.count("Found: transaction") == 2
    assert "Found: transaction t2 of Toft stores → Did it reach the books?" in told
    assert "/companies/c1/transactions/t2" in links(html)
    assert "Found: transaction" not in read(reader, "/?q=part")


def test_the_history_is_sorted_both_ways_by_its_headings(shelf: Shelf, reader: TestClient) -> None:
    """A heading sorts downwards first, then upwards, and keeps the filters."""
    a_morning(shelf)
    html = reader.get("/?outcome=failed&outcome=partly_failed&sort=-started_at").text
    assert html.index("/syncs/part") < html.index("/syncs/bad")
    assert 'aria-sort="descending"' in html
    (rising,) = [link for link in links(html) if "sort=started_at" in link]
    html = reader.get(rising).text
    assert html.index("/syncs/bad") < html.index("/syncs/part")
    assert "/syncs/good" not in html


def test_the_history_is_paged_through_without_a_gap(shelf: Shelf, reader: TestClient) -> None:
    """Every sync once, filters kept, and the way back to the first page."""
    a_morning(shelf)
    seen: list[str] = []
    address = "/?limit=2&sort=started_at"
    while address:
        html = reader.get(address).text
        seen += [link.split("/")[2].split("?")[0] for link in links(html) if "/syncs/" in link]
        address = next(
            (each for each in links(html) if "cursor=" in each and ".csv" not in each), ""
        )
    assert seen == list(OUTCOMES)
    assert "/?limit=2&sort=started_at" in links(html)


def test_the_csv_has_what_the_page_filters(shelf: Shelf, reader: TestClient) -> None:
    """The link carries the filters; the file has every row of them."""
    a_morning(shelf)
    html = reader.get("/?outcome=partly_failed&limit=1").text
    (link,) = [each for each in links(html) if each.startswith("/syncs.csv")]
    answer = reader.get(link)
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["sync_id"] for row in rows] == ["part"]


def opened(database: Database, *found: Finding) -> None:
    """Open these alerts."""
    with database.writing() as connection:
        alerts.turn(connection, {each.cause for each in found}, found, T0)


def test_what_somebody_must_look_at_is_on_top(
    shelf: Shelf, database: Database, reader: TestClient
) -> None:
    """An open alert comes before everything else, a company by its name."""
    shelf.company("c1", "Toft stores")
    opened(database, Finding("webhooks_lost", "c1", "Nothing heard"))
    told = read(reader, "/")
    assert told.index("Nothing heard") < told.index("0 syncs of all companies")
    assert "UTC · Toft stores" in told


def test_failures_of_a_cause_are_one_line_however_many_companies_have_them(
    database: Database, reader: TestClient
) -> None:
    """What is wrong with the service comes before them; more than three causes are folded away."""
    keys = ("account_inactive", "period_closed", "tax_rate_missing", "permission")
    many = [
        Finding(f"push_error:{key}", f"c{n}", f"{key} of c{n}")
        for place, key in enumerate(keys)
        for n in range(9 - place)
    ]
    opened(database, Finding("endpoint_disabled", "", "Codat has disabled it"), *many)
    html = reader.get("/").text
    told = text(html)
    line = "The account is inactive: transactions of 9 companies stay failed"
    assert told.index("Codat has disabled it") < told.index(line)
    assert "account_inactive of c" not in told
    assert "1 more" in told
    assert "/causes#account_inactive" in links(html)


@pytest.mark.parametrize("asked", ["q=zzz", "limit=1&sort=started_at"])
def test_a_filtered_or_later_page_only_says_that_there_is_something_to_look_at(
    shelf: Shelf, database: Database, reader: TestClient, asked: str
) -> None:
    """And leads back to the first page."""
    a_morning(shelf)
    opened(database, *(Finding("push_error:permission", f"c{n}", "not in the books") for n in "12"))
    html = reader.get(f"/?{asked}").text
    if "limit" in asked:
        assert "Somebody must look at this" in html
        html = reader.get(next(each for each in links(html) if "cursor=" in each)).text
    assert "Somebody must look at this" not in html
    assert "1 thing to look at" in text(html)


def test_an_empty_service_says_what_will_fill_it(reader: TestClient) -> None:
    """On every list."""
    assert "No sync has been heard of yet" in read(reader, "/")
    assert "There is no sync in this range of days" in read(reader, "/")
    assert "No company has been heard of yet" in read(reader, "/companies")
    events = read(reader, "/events")
    assert "Nothing unreadable is kept" in events
    assert "Nothing of an unknown type is kept" in events


def test_companies_show_how_it_goes_in_each(shelf: Shelf, reader: TestClient) -> None:
    """By name, searchable, with what stays failed and the newest sync."""
    a_morning(shelf)
    shelf.company("c3")
    told = read(reader, "/companies")
    assert "Old Mill c2 2 0 0 – Nothing to write 1 Jan 2026, 09:03" in told
    assert "Toft stores c1 4 2 2 ? Not known yet 1 Jan 2026, 09:05" in told
    assert "c3 0 0 0 none heard of yet" in told
    assert "Old Mill" not in read(reader, "/companies?q=tof")
    assert "No company fits this search" in read(reader, "/companies?q=zzz")


def test_a_company_shows_what_stays_failed_there(shelf: Shelf, reader: TestClient) -> None:
    """Until a later sync has written it."""
    a_morning(shelf)
    told = read(reader, "/companies/c1")
    assert "Items that stay failed 2" in told
    shelf.done("cure", items=(done_item("t1"), done_item("t2")), at=after(hours=1))
    cured = read(reader, "/companies/c1")
    assert "Items that stay failed 0" in cured
    assert "No failed item is open here" in cured
    assert "No sync of this company has been heard of yet" not in cured


def test_an_expense_says_whether_it_reached_the_books(shelf: Shelf, reader: TestClient) -> None:
    """Its newest sync decides, and the sync that wrote it after all is named."""
    shelf.failed()
    told = read(reader, "/companies/c1/transactions/t1", 404)
    shelf.company("c1", "Toft stores")
    told = read(reader, "/companies/c1/transactions/t1")
    assert "✕ Not in the books Its newest sync failed to write it." in told
    shelf.done("s2", at=after(hours=1))
    told = read(reader, "/companies/c1/transactions/t1")
    assert "✓ In the books" in told
    assert "After it had failed, a later sync wrote it" in told
    assert "written by a later sync" in read(reader, "/syncs/s1")


def test_what_could_not_be_read_is_kept_and_shown(shelf: Shelf, reader: TestClient) -> None:
    """With its reason and its body, as text."""
    shelf.event("m1", reading="unreadable", reason="it is not JSON", body=b"<b>oops</b>")
    shelf.event("m2", reading="unknown", reason="its type is in no catalog", body=b"\xff\x00")
    shelf.event("m3", body=None)
    told = read(reader, "/events")
    assert "it is not JSON" in told
    assert "its type is in no catalog" in told
    assert "m3" not in told
    assert "m2" not in read(reader, "/events?reading=unreadable")
    assert "m3" in read(reader, "/events?reading=any")
    assert "&lt;b&gt;oops&lt;/b&gt;" in reader.get("/events/m1").text
    assert "in base64 because it is not text /wA=" in read(reader, "/events/m2")
    assert "The body is not kept any longer" in read(reader, "/events/m3")


def test_kept_webhooks_name_their_company_and_say_what_to_do(
    shelf: Shelf, reader: TestClient
) -> None:
    """With the odd ones; one that was understood needs no reason."""
    shelf.company("c1", "Toft stores")
    shelf.event("m1", reading="unknown", reason="its type is in no catalog", company_id="c1")
    shelf.event("m2", company_id="c2")
    told = read(reader, "/events?reading=any")
    assert "Toft stores" in told
    assert "Understood SyncFailed – c2 m2" in told
    assert "Give the message ID" in told
    one = read(reader, "/events/m1")
    assert "Company Toft stores" in one
    assert "Give the message ID" in one
    assert "Give the message ID" not in read(reader, "/events/m2")


def test_nothing_that_codat_tells_becomes_html(shelf: Shelf, reader: TestClient) -> None:
    """Names, messages, ids and reasons are text wherever they stand, and stay findable."""
    shelf.company(EVIL, EVIL)
    number = shelf.failed(
        EVIL, EVIL,
        items=(Item(EVIL, EVIL + "Failed", EVIL, EVIL), failed_item("t2")),
        error_message=EVIL, exception_message=EVIL, failure_stage=EVIL,
    )  # fmt: skip
    shelf.fetch(number, "dead", attempts=1, last_error=EVIL)
    shelf.note(number, T0, EVIL, EVIL)
    shelf.event(EVIL, event_type=EVIL, reading="unreadable", reason=EVIL, body=EVIL.encode())
    asked = {"/", "/companies", "/events"}
    for start in list(asked):
        asked |= {link for link in links(reader.get(start).text) if "script" in link}
    assert len(asked) >= 5
    for path in asked:
        answer = reader.get(path)
        assert answer.status_code == 200, path
        assert "<script>" not in answer.text
        assert "<img src=x" not in answer.text
        assert "alert(&#39;x&#39;)" in answer.text or "alert%28%27x" in answer.text, path


PAGES = ["/", "/syncs/s1", "/companies", "/companies/c1", "/companies/c1/transactions/t1",
         "/events", "/events/m1", "/sign-in", "/syncs/unknown", "/?limit=x"]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_strict_about_what_may_run_and_who_may_frame_it(
    shelf: Shelf, reader: TestClient, path: str
) -> None:
    """Also the pages that tell of an error; and no page needs what its policy forbids."""
    shelf.company("c1", "Toft stores")
    shelf.failed()
    shelf.event("m1")
    answer = reader.get(path, follow_redirects=False)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self'" in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=\"/static/)", answer.text)
    assert not re.search(r"(src|href)=\"(https?:)?//", answer.text)


def test_our_files_are_kept_for_long_and_change_their_address_when_they_change(
    reader: TestClient,
) -> None:
    """Only the address with the version may be kept without asking."""
    html = reader.get("/").text
    (style,) = re.findall(r'href="(/static/style\.css\?v=\w+)"', html)
    kept = reader.get(style)
    assert kept.headers["content-type"].startswith("text/css")
    assert "immutable" in kept.headers["cache-control"]
    plain = reader.get("/static/style.css?v=old")
    assert plain.headers["cache-control"] == "no-cache"
    again = reader.get("/static/style.css", headers={"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert reader.get("/static/..%2fpages.py").status_code == 404
    assert reader.get("/static/nothing.js").status_code == 404


def test_an_error_is_a_page_that_says_what_to_do(
    reader: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown, wrongly asked, or the database away; never a bare line of JSON."""
    assert "Nothing is known here by this name" in read(reader, "/syncs/unknown", 404)
    wrong = read(reader, "/?limit=x&sort=colour", 422)
    assert "Rows on a page (“limit”)" in wrong
    assert "Allowed: a whole number from 1 to 200." in wrong
    assert "Sorting (“sort”)" in wrong
    assert "begin again at the first page" in read(reader, "/?cursor=nonsense", 422)
    assert "“colour” is not something this page can be asked for" in read(
        reader, "/companies?colour=red", 422
    )
    assert "Input should be" not in wrong
    assert "There is nothing at this path" in read(reader, "/syncs/a/b/c", 404)

    def away(*_: object, **__: object) -> None:
        raise StorageUnavailable("connection refused at 10.0.0.1")

    monkeypatch.setattr("app.db.queries.syncs.list_syncs", away)
    answer = reader.get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "Nothing that Codat told is lost by this" in text(answer.text)
    assert "10.0.0.1" not in answer.text


@pytest.mark.parametrize("model", [SyncQuery, SyncPageQuery, KeptQuery, CauseQuery, CompanyQuery])
def test_whatever_a_page_can_be_asked_for_has_words_for_when_it_is_wrong(
    model: type[BaseModel],
) -> None:
    """The notice of what was just done is set by the page itself."""
    names = {field.alias or name for name, field in model.model_fields.items()}
    assert names - {"asked"} <= set(FIELDS)


def test_who_comes_to_where_nothing_is_gets_a_page_and_a_program_gets_json(
    reader: TestClient,
) -> None:
    """By what the caller prefers; the API's own paths stay JSON."""
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    answer = reader.get("/nothing", headers=browser)
    assert answer.status_code == 404
    assert "Nothing is known here by this name" in text(answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for path, headers in (("/nothing", {}), ("/api/v1/nothing", browser), ("/livez/x", browser)):
        plain = reader.get(path, headers=headers)
        assert plain.headers["content-type"] == "application/problem+json", path


def test_refresh_asks_codat_again_and_shows_the_page(
    shelf: Shelf, app: FastAPI, reader: TestClient
) -> None:
    """With a form and no script; whose sync it is goes along."""
    shelf.failed("same", "c1")
    shelf.failed("same", "c2")
    token = form_token(reader)
    answer = reader.post("/syncs/same/refresh", data={"csrf": token, "company_id": "c2"})
    assert "Codat is being asked about this sync" in text(answer.text)
    assert app.state.asked == [("c2", "same")]
    assert reader.post("/syncs/same/refresh", data={"csrf": token}).status_code == 409
    assert reader.post("/syncs/other/refresh", data={"csrf": token}).status_code == 404
    assert reader.get("/syncs/same/refresh", follow_redirects=False).status_code == 303


def test_retry_is_offered_only_where_something_failed_and_something_would_take_it(
    shelf: Shelf, app: FastAPI, reader: TestClient
) -> None:
    """Else the button is off and says why; a form that is sent all the same is refused."""
    shelf.failed()
    shelf.done("s2", items=(done_item("t9"),))
    off = re.compile(r"<button[^>]*disabled[^>]*>Retry failed items")
    assert off.search(reader.get("/syncs/s1").text)
    assert "Retry is off" in read(reader, "/syncs/s1")
    assert "no item failed" in read(reader, "/syncs/s2")
    token = form_token(reader)
    assert reader.post("/syncs/s1/retry", data={"csrf": token}).status_code == 409
    address = SecretStr("https://retry.test/hook")
    app.state.settings = app.state.settings.model_copy(update={"retry_webhook_url": address})
    assert not off.search(reader.get("/syncs/s1").text)
    assert off.search(reader.get("/syncs/s2").text)
    answer = reader.post("/syncs/s1/retry", data={"csrf": token})
    assert "The failed items are being handed over" in text(answer.text)
    assert "somebody asked to retry 1 failed item (" in read(reader, "/syncs/s1")
    refused = reader.post("/syncs/s2/retry", data={"csrf": token})
    assert refused.status_code == 409
    assert "That cannot be done now" in text(refused.text)


def test_a_sync_can_be_had_as_the_api_answers_it(shelf: Shelf, reader: TestClient) -> None:
    """For who wants to send it on."""
    shelf.failed()
    assert reader.get("/syncs/s1/json").json()["outcome"] == "failed"


def test_ids_with_any_character_have_pages_that_links_reach(
    shelf: Shelf, reader: TestClient
) -> None:
    """Codat's ids are plain strings to us."""
    strange = "a/b?c#d %2F&é"
    shelf.company(strange, "Toft stores")
    shelf.failed(strange, strange, items=(failed_item(strange),))
    for link in [each for each in links(reader.get("/").text) if "a%2Fb" in each]:
        assert reader.get(link).status_code == 200, link
    page = reader.get(next(each for each in links(reader.get("/").text) if "/syncs/" in each))
    (item,) = {each for each in links(page.text) if "/transactions/" in each}
    assert "Not in the books" in text(reader.get(item).text)


def test_causes_are_those_of_the_last_thirty_days_unless_asked_for_more(
    shelf: Shelf, reader: TestClient
) -> None:
    """The page says which, and leads to the others."""
    shelf.failed(at=after(days=-40), items=(failed_item("t1", "Account is closed"),))
    told = reader.get("/causes").text
    assert "No failure is known from the last 30 days" in text(told)
    assert "/causes?from=1970-01-01" in links(told)
    older = read(reader, "/causes?from=1970-01-01")
    assert "1 open" in older
    assert "From the last 30 days" in older


def test_causes_say_who_must_do_what_and_lead_to_their_syncs(
    shelf: Shelf, reader: TestClient
) -> None:
    """Every failure is under a cause, also one that nobody recognises."""
    assert "No failure is known" in read(reader, "/causes")
    a_morning(shelf)
    answer = reader.get("/causes")
    told = text(answer.text)
    assert "The bank account is already connected to a feed ✕ 1 open" in told
    assert "The customer must act. Ask the customer to disconnect the other feed" in told
    assert "1 transaction of 1 company" in told
    assert "please disconnect the old feed first." in told
    found = links(answer.text)
    chosen = "/?cause=bank_feed_connected"
    assert "/syncs/part" in reader.get(found[found.index(chosen)]).text
    title = "The bank account is already connected to a feed"
    assert f"selected>{title}</option>" in reader.get(chosen).text
    assert title in read(reader, "/syncs/part")
    assert "The customer must act." in read(reader, "/syncs/part")
    assert title not in read(reader, "/causes?company_id=nobody")


def test_the_open_transactions_of_a_cause_are_downloaded(
    shelf: Shelf, reader: TestClient, person: TestClient
) -> None:
    """Those that no later sync has written, of the company the page is about; signed in only."""
    a_morning(shelf)
    shelf.failed("old", items=(failed_item("t8", CONNECTED),))
    shelf.done("cure", items=(done_item("t8"),), at=after(hours=1))
    shelf.failed("theirs", "c2", items=(failed_item("t9", CONNECTED),))
    (link,) = [each for each in links(reader.get("/causes?company_id=c1").text)
               if each.endswith("bank_feed_connected/open.csv?company_id=c1")]  # fmt: skip
    answer = reader.get(link)
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["transaction_id"] for row in rows] == ["t2"]
    both = reader.get("/causes/bank_feed_connected/open.csv").text
    assert len(list(csv.DictReader(io.StringIO(both)))) == 2
    assert reader.get("/causes/bank_feed_connected/open.csv?who=us").status_code == 422
    person.cookies.clear()
    assert person.get(link).url.path == "/sign-in"


def test_a_companys_configuration_is_shown_and_downloaded(
    shelf: Shelf, app: FastAPI, reader: TestClient, person: TestClient
) -> None:
    """Read from Codat while one waits, shown as text."""
    shelf.company("c/1", "Toft stores")
    shelf.failed(company_id="c/1")

    async def get_config(company_id: str) -> dict[str, Any]:
        if company_id != "c/1":
            raise CodatUnavailable("Codat cannot do this now", status=503)
        return {"configuration": {"note": EVIL}}

    app.state.codat.get_config = get_config
    assert "/companies/c%2F1/config" in links(reader.get("/companies/c%2F1").text)
    assert "/companies/c%2F1/config" in links(reader.get("/syncs/s1").text)
    answer = reader.get("/companies/c%2F1/config")
    assert '"configuration"' in text(answer.text)
    assert "<script>" not in answer.text
    file = reader.get("/companies/c%2F1/config.json")
    assert file.json() == {"configuration": {"note": EVIL}}
    assert file.headers["content-disposition"] == 'attachment; filename="codat-config-c_1.json"'
    away = read(reader, "/companies/c2/config", 502)
    assert "Codat does not answer this Codat cannot answer now" in away
    assert "Bad Gateway" not in away
    person.cookies.clear()
    assert person.get("/companies/c%2F1/config.json").url.path == "/sign-in"
