"""The pages of causes: who has to act, how many failures, which messages."""

from fastapi.testclient import TestClient
from sqlalchemy import update

from app.db.tables import failed_transactions
from tests.web.pages.html import links, read, read_csv, text
from tests.web.store import Store, after, completed_row, failed_row

CLOSED = "The period is closed"


def test_causes_say_who_acts_and_lead_to_their_syncs(store: Store, user: TestClient) -> None:
    store.company("c1", "Toft stores")
    store.failed(rows=(failed_row("t1", CLOSED), failed_row("t2", CLOSED)))
    store.failed("whole", "c2", code=4260, rows=())
    html = user.get("/causes").text
    for expected in (
        "Failures grouped by cause, last 30 days. Show all time",
        "Accounting period closed ✕ 2 open",
        "Owner: customer. Ask the customer to reopen the period",
        "2 expenses, 1 company Resend: after the fix First failed 1 Jan, 09:00",
        "Accounting software subscription ended Owner: customer.",
        "1 sync failed completely, 1 company",
    ):
        assert expected in text(html)
    assert "/?cause=period_closed" in links(html)
    page = read(user, "/causes?company_id=c1")
    assert "Company: Toft stores ×" in page
    assert "subscription ended" not in page


def test_older_failures_are_shown_when_asked_for(store: Store, user: TestClient) -> None:
    store.failed(at=after(days=-40), rows=(failed_row("t1", CLOSED),))
    html = user.get("/causes").text
    assert "No failures in the last 30 days." in text(html)
    (link,) = links(html, "from=")
    page = read(user, link)
    assert "1 open" in page
    assert "since 1 Jan 1970. Show the last 30 days" in page


def test_the_page_of_a_cause_groups_equal_messages(store: Store, user: TestClient) -> None:
    store.failed(rows=(failed_row("t1", "Period 2026-01 is closed"), failed_row("t2", CLOSED)))
    latest = failed_row("t3", "Period 2025-12 is closed")
    store.failed("s2", "c2", rows=(latest,), at=after(hours=1))
    page = read(user, "/causes/period_closed")
    assert "✕ 3 open last 30 days" in page
    assert "Period 2025-12 is closed 2 2 2 1 Jan, 10:00" in page
    assert "The period is closed 1 1 1 1 Jan, 09:00" in page
    assert "Period 2026-01" not in page


def test_a_cause_that_is_no_longer_defined_is_still_shown(store: Store, user: TestClient) -> None:
    assert "Cause not found" in read(user, "/causes/our_old_cause", 404)
    store.failed()
    with store.database.writing() as connection:
        connection.execute(update(failed_transactions).values(cause_key="our_old_cause"))
    page = read(user, "/causes/our_old_cause")
    assert "This cause is no longer defined; no owner is known." in page


def test_the_open_items_of_a_cause_are_exported_until_it_is_resolved(
    store: Store, user: TestClient
) -> None:
    store.failed("old", rows=(failed_row("t8", CLOSED),))
    store.completed("fixed", rows=(completed_row("t8"),), at=after(hours=1))
    html = user.get("/causes").text
    assert "Accounting period closed ✓ Resolved" in text(html)
    assert not links(html, "open.csv")
    store.failed("part", rows=(failed_row("t2", CLOSED),), at=after(hours=2))
    store.failed("theirs", "c2", rows=(failed_row("t9", CLOSED),))
    link, semicolons = links(user.get("/causes?company_id=c1").text, "open.csv")
    assert read_csv(user, link, "transaction_id") == {"t2"}
    assert read_csv(user, semicolons, "transaction_id", ";") == {"t2"}
    assert user.get("/causes/period_closed/open.csv?owner=us").status_code == 422
