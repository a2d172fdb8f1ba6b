"""What the pages of a sync, a company and a transaction say where little or nothing is known."""

import re
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.db import sync_writer as store
from app.db.engine import Database
from app.domain.sync_state import Heard
from tests.web.pages.test_pages import links, read, text
from tests.web.people import form_token
from tests.web.shelf import NOW, T0, Shelf, after, done_item, failed_item

UNREAD: dict[str, Any] = {"items_from": "webhook", "items_complete": False, "fetched_at": None}


@pytest.mark.parametrize(
    ("fetch", "more"),
    [
        ({"due": after(hours=4)}, {"code": None, "heard": Heard.FAILED, "unsettled": Heard.FAILED}),
        ({"state": "dead", "attempts": 3}, {}),
        ({"due": after(hours=4)}, {"items_from": "codat", "expected": 9}),
    ],
    ids=["waiting", "given up", "incomplete"],
)
def test_an_empty_list_that_codat_was_not_asked_for_is_not_taken_for_the_truth(
    shelf: Shelf, reader: TestClient, fetch: dict[str, Any], more: dict[str, Any]
) -> None:
    """A webhook with `transactions: []` proves nothing: not on the page, not in a table."""
    shelf.company("c1", "Toft stores")
    shelf.fetch(shelf.failed(**{"items": (), **UNREAD, "expected": None, **more}), **fetch)
    told = read(reader, "/syncs/s1")
    assert "Which of its items did not reach the accounting software is not known yet" in told
    assert "Items failed not known yet" in told
    assert "Items written not known yet" in told
    assert "Nothing can be retried yet: which items failed is not known." in told
    assert "The items are not known yet." in told
    for path in ("/syncs/s1", "/", "/companies/c1"):
        assert " 0 of 0" not in read(reader, path)
    assert "failed as a whole" not in told


TAX = "A tax rate is required for account 400."


def test_a_partly_failed_sync_says_who_must_do_what_and_leads_to_the_items(
    shelf: Shelf, reader: TestClient
) -> None:
    """The failed items by cause, the most frequent first; a cause's items and nothing else."""
    closed = failed_item("z", "The period is closed")
    shelf.failed(items=(closed, *(failed_item(f"t{n}", TAX) for n in range(3)), done_item("d")))
    html = reader.get("/syncs/s1").text
    told = text(html)
    assert re.search(r"3 × A tax rate is .* 1 × The accounting period is closed", told)
    assert "The customer must act. Ask the customer to reopen the period" in told
    (link,) = [each for each in links(html) if "cause=period_closed" in each and "failed=" in each]
    assert link == "/syncs/s1?failed=true&cause=period_closed#items"
    shown = [each for each in links(reader.get(link).text) if "/transactions/" in each]
    assert shown == ["/companies/c1/transactions/z"]
    assert "/syncs/s1?failed=true#items" in links(html)
    assert "Show only the 4 failed items" in told


def test_the_exceptions_message_is_shown_only_where_it_says_more(
    shelf: Shelf, reader: TestClient
) -> None:
    """The same sentence with another id is read once."""
    error = "Push 8a6f1b2c-0000-1111-2222-333344445555 failed"
    same = "Push 11111111-0000-1111-2222-333344445555 failed"
    shelf.failed("same", items=(), error_message=error, exception_message=same)
    shelf.failed("more", items=(), error_message=error, exception_message="Out of memory")
    assert "Codat's exception message" not in read(reader, "/syncs/same")
    assert "Codat's exception message Out of memory" in read(reader, "/syncs/more")


def test_a_sync_that_failed_as_a_whole_has_nothing_below_and_nothing_to_send_again(
    shelf: Shelf, reader: TestClient
) -> None:
    """Codat lists no items: a new sync helps, once the cause is mended."""
    shelf.failed(code=4260, items=())
    told = read(reader, "/syncs/s1")
    assert "Codat lists no items for it, as of 1 Jan 2026, 09:00:00 UTC." in told
    assert "The items below" not in told
    assert "Start a new sync once the cause is mended." in told
    assert "Codat lists no items for this sync." in told
    shelf.done("s2")
    assert "no item failed" in read(reader, "/syncs/s2")


def test_a_company_does_not_look_calm_after_a_sync_that_failed_as_a_whole(
    shelf: Shelf, reader: TestClient
) -> None:
    """Until a later sync is proved complete; one that only may have gone well changes nothing."""
    shelf.company("c1", "Toft stores")
    shelf.done("before")
    shelf.failed("whole", code=4260, items=(), at=after(minutes=1))
    shelf.sync("odd", code=2000, at=after(minutes=2))
    told = read(reader, "/companies/c1")
    assert "A sync failed as a whole" in told
    assert " must act. " in told
    assert "Items that stay failed 0 and what a failed sync had, see below" in told
    assert "No failed item is open here" not in told
    shelf.done("later", at=after(minutes=3))
    calm = read(reader, "/companies/c1")
    assert "failed as a whole" not in calm
    assert "No failed item is open here" in calm


def test_a_company_says_that_nobody_knows_what_failed_in_its_newest_sync(
    shelf: Shelf, reader: TestClient
) -> None:
    """While its list is waited for, and why it failed is not known either."""
    shelf.company("c1", "Toft stores")
    shelf.sync(heard=Heard.FAILED, unsettled=Heard.FAILED)
    told = read(reader, "/companies/c1")
    assert "A sync failed; which of its items is not known yet" in told
    assert "Why it failed is not known yet." in told


DOUBLE = "Transaction has already been processed"


def test_an_item_that_was_recorded_before_is_not_said_to_be_missing(
    shelf: Shelf, reader: TestClient
) -> None:
    """Codat says so and we cannot look; but any other failure beside it is one."""
    shelf.company("c1", "Toft stores")
    shelf.failed(code=5080, items=(failed_item("t1", DOUBLE), failed_item("t2", DOUBLE),
                                   failed_item("t2", "The period is closed")))  # fmt: skip
    html = reader.get("/companies/c1/transactions/t1").text
    assert "check in the accounting software" in text(html)
    assert "Not in the books" not in html
    assert 'class="card verdict calm"' in html
    assert "Not in the books" in read(reader, "/companies/c1/transactions/t2")
    assert "Recorded before?" in read(reader, "/syncs/s1")


def test_a_page_says_when_nothing_fetches_from_codat_any_more(
    shelf: Shelf, reader: TestClient, database: Database
) -> None:
    """A time that has passed is no promise, and somebody must start the worker."""
    shelf.company("c1", "Toft stores")
    shelf.fetch(shelf.failed(items=None), due=after(minutes=5))
    told = read(reader, "/syncs/s1")
    assert "no worker has ever been seen. Whoever runs this service must start the worker." in told
    assert "the next try is due since 1 Jan 2026, 09:05:00 UTC." in told
    with database.writing() as connection:
        store.beat(connection, "w", T0)
    for path in ("/syncs/s1", "/companies/c1"):
        told = read(reader, path)
        assert "Nothing is fetching from Codat since 1 Jan 2026, 09:00:00 UTC." in told
    with database.writing() as connection:
        store.beat(connection, "w", NOW - timedelta(seconds=59))
    assert "Nothing is fetching" not in read(reader, "/syncs/s1")


def test_a_page_does_not_count_attempts_that_do_not_count(shelf: Shelf, reader: TestClient) -> None:
    """One that met Codat's rate limit is none, yet it is the reason."""
    limited = "Codat answered 429: please retry later."
    shelf.fetch(shelf.failed(items=None), due=after(hours=4), last_error=limited)
    told = read(reader, "/syncs/s1")
    assert "The reason: Codat answered 429: please retry later. " in told
    assert "0 attempts" not in told


def test_a_notice_is_shown_once_and_no_address_carries_it(shelf: Shelf, reader: TestClient) -> None:
    """Who gets the link did not press the button."""
    shelf.failed("a/b")
    answer = reader.post("/syncs/a%2Fb/refresh", data={"csrf": form_token(reader)})
    assert "Codat is being asked about this sync" in text(answer.text)
    assert "asked" not in str(answer.url)
    assert "is being asked about" not in read(reader, "/syncs/a%2Fb?company_id=c1")


@pytest.mark.parametrize(
    ("noted", "told"),
    [
        ("given up: Codat cannot be reached (given up after 2 attempts)",
         "after 2 attempts because Codat cannot be reached. Once"),
        ("Codat cannot be reached: ConnectError (given up after 2 attempts)",
         "after 2 attempts because Codat cannot be reached: ConnectError. Once"),
    ],
)  # fmt: skip
def test_giving_up_is_said_once(shelf: Shelf, reader: TestClient, noted: str, told: str) -> None:
    """However it was noted."""
    shelf.fetch(shelf.failed(items=None), state="dead", attempts=2, last_error=noted)
    assert f"Given up {told}" in read(reader, "/syncs/s1")


def test_times_in_the_timeline_are_read_by_people(shelf: Shelf, reader: TestClient) -> None:
    """And its webhooks are told in words."""
    number = shelf.failed()
    shelf.note(number, T0, reason="put off until 2026-01-01T09:00:02Z: Codat answered 503")
    shelf.note(number, T0, reason="Codat said 2026-13-45T99:00:00Z")
    shelf.event("m1", company_id="c1", sync_id="s1")
    told = read(reader, "/syncs/s1")
    assert "put off until 1 Jan 2026, 09:00:02 UTC: Codat answered 503" in told
    assert "Codat said 2026-13-45T99:00:00Z" in told
    assert "Webhook sync failed (SyncFailed)" in told


def test_tables_say_a_causes_name_and_next_step_only(shelf: Shelf, reader: TestClient) -> None:
    """The whole text is where there is one item."""
    shelf.company("c1", "Toft stores")
    shelf.failed(items=(failed_item("t1", "The period is closed"), done_item("t2")))
    long = "The date of the expense lies in a period"
    for path in ("/syncs/s1", "/companies/c1"):
        told = read(reader, path)
        assert "The accounting period is closed The customer must act. Ask the customer" in told
        assert long not in told
    assert long in read(reader, "/companies/c1/transactions/t1")
