"""The pages of companies, of their expenses, and of their configuration."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.errors import CodatUnavailable
from tests.web.conftest import FakeCodat
from tests.web.pages.html import links, read, text
from tests.web.store import T0, Store, after, completed_row, failed_row

DUPLICATE = "Transaction has already been processed"
CLOSED = "The period is closed"


def test_companies_are_listed_with_their_totals(store: Store, user: TestClient) -> None:
    store.company("c1", "Toft stores")
    store.company("c2")
    store.failed("s1", rows=(failed_row("t1"), failed_row("t2")))
    store.completed("s2", at=after(minutes=1), rows=(completed_row("t1"),))
    page = read(user, "/companies")
    assert "Company Syncs Failed syncs Open items Latest sync" in page
    assert "Toft stores c1 2 1 1 ✓ Written 1 Jan, 09:01" in page
    assert "c2 0 0 0 No syncs yet" in page
    assert "c2" not in read(user, "/companies?q=toft")
    assert "No companies match." in read(user, "/companies?q=nobody")


def test_a_company_shows_its_open_items_until_they_are_recorded(
    store: Store, user: TestClient
) -> None:
    store.company("c1", None, connection_state="Linked")
    store.failed(rows=(failed_row("t1", CLOSED), failed_row(None)))
    html = user.get("/companies/c1").text
    for expected in (
        "Unnamed company",
        "Open items 2 Connection Linked",
        "Accounting period closed Owner: customer. Ask the customer to reopen",
        "No ID",
    ):
        assert expected in text(html)
    assert {"/companies/c1/config", "/causes?company_id=c1", "/?company_id=c1"} <= set(links(html))
    store.completed("s2", rows=(completed_row("t1"),), at=after(hours=1))
    assert "Open items 1 " in read(user, "/companies/c1")


def test_a_sync_that_failed_completely_is_shown_until_a_later_one_succeeds(
    store: Store, user: TestClient
) -> None:
    store.company("c1", "Toft stores")
    store.completed("before")
    store.failed("whole", code=4260, rows=(), at=after(minutes=1))
    store.sync("odd", code=2000, at=after(minutes=2))
    page = read(user, "/companies/c1")
    assert "Open items unknown (whole sync failed)" in page
    assert (
        "Cannot sync Not syncing since 1 Jan 2026, 09:01:00 UTC: Accounting software subscription"
        in page
    )
    assert "Toft stores ✕ Cannot sync" in read(user, "/companies?cannot_sync=true")
    assert "No successful sync since." in page
    assert "No failed items." in page
    store.completed("later", at=after(minutes=3))
    page = read(user, "/companies/c1")
    assert "Not syncing" not in page
    assert "No open items." in page
    # without its items, a failed sync is no complete failure
    store.sync("s9", "c9", failed_received_at=T0, reported_ended_at=T0)
    page = read(user, "/companies/c9")
    assert "A sync failed (1 Jan, 09:00), and Codat has not returned its items yet." in page
    assert "The cause is not known yet." in page


def test_an_expense_page_says_whether_it_is_in_the_books(store: Store, user: TestClient) -> None:
    expense = "5f20a9c1-0000-4000-8000-0000000073f2"
    path = f"/companies/c1/transactions/{expense}"
    store.company("c1", "Toft stores")
    assert "Expense not found" in read(user, path, 404)
    store.failed(rows=(failed_row(expense, CLOSED),))
    page = read(user, path)
    assert "Expense 5f20…73f2: not in the books" in page
    assert "The latest sync could not record this expense." in page
    assert "Message to customer Your accounting software" in page
    store.completed("s2", rows=(completed_row(expense),), at=after(hours=1))
    page = read(user, path)
    assert "Recorded by the sync of 1 Jan, 10:00 (after failing on 1 Jan, 09:00)." in page
    assert "Message to customer" not in page
    assert "✓ In the books Recorded by a later sync" in read(user, "/syncs/s1")


def test_a_possible_duplicate_is_not_called_missing(store: Store, user: TestClient) -> None:
    duplicate = failed_row("t2", DUPLICATE)
    store.failed(code=5080, rows=(failed_row("t1", DUPLICATE), duplicate, failed_row("t2", CLOSED)))
    html = user.get("/companies/c1/transactions/t1").text
    assert "Check the accounting software." in text(html)
    assert "not in the books" not in html.lower()
    assert 'class="card result calm"' in html
    assert "Not in the books" in read(user, "/companies/c1/transactions/t2")
    assert "Possible duplicate" in read(user, "/syncs/s1")


def test_a_configuration_is_read_from_codat_and_downloaded(app: FastAPI, user: TestClient) -> None:
    app.state.codat = FakeCodat({"note": "<script>alert(1)</script>"})
    html = user.get("/companies/c%2F1/config").text
    assert "Current configuration (read from Codat just now)" in text(html)
    assert "<script>alert" not in html
    file = user.get("/companies/c%2F1/config.json")
    assert file.json() == app.state.codat.config
    assert file.headers["content-disposition"] == 'attachment; filename="codat-config-c_1.json"'
    app.state.codat.error = CodatUnavailable("Codat answered 503", status=503)
    page = read(user, "/companies/c2/config", 502)
    assert "Codat is not responding Try again in a few seconds. No data is lost." in page
