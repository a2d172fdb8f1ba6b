"""Each journey of support staff, with script and without."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select, update

from app.db.tables import transactions
from app.db.tables_told import outgoing
from tests.browser.conftest import EXPENSE, WRAPPED, Site, Visit
from tests.processes import API_KEY
from tests.web.shelf import Shelf, failed_item

CORRELATION = f"corr-{EXPENSE}"
both_ways = pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])


@both_ways
def test_support_finds_a_customers_failed_expense_and_why_it_failed(
    visit: Visit, script: bool
) -> None:
    """From the expense's id to the message, and to whether it is in the books now."""
    page = visit("/", java_script_enabled=script)
    page.get_by_label("Search").fill(EXPENSE)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr:visible")).to_have_count(1)
    page.get_by_role("link", name="failed-one").click()
    expect(page.locator(".verdict")).to_contain_text("2 of 3 items did not reach")
    row = page.get_by_role("row").filter(has_text=EXPENSE)
    expect(row).to_contain_text("Account code '429' is not active.")
    expect(row).to_contain_text("PushError")
    row.get_by_role("link", name=EXPENSE).click()
    expect(page.locator(".verdict")).to_contain_text("Not in the books")


def test_the_correlation_id_is_copied_with_one_press(visit: Visit) -> None:
    """For a ticket to Codat's support."""
    page = visit("/syncs/failed-one", permissions=["clipboard-read", "clipboard-write"])
    row = page.get_by_role("row").filter(has_text=EXPENSE)
    row.get_by_role("button", name="Copy the correlation ID").click()
    expect(row.get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == CORRELATION


def test_without_script_the_correlation_id_can_be_read_and_marked(visit: Visit) -> None:
    """And no button is shown that could not work."""
    page = visit("/syncs/failed-one", java_script_enabled=False)
    row = page.get_by_role("row").filter(has_text=EXPENSE)
    expect(row.get_by_text(CORRELATION)).to_be_visible()
    expect(page.locator("button.copy:visible")).to_have_count(0)


@both_ways
def test_the_history_is_filtered_by_status_code_and_the_address_can_be_shared(
    visit: Visit, script: bool
) -> None:
    """Whoever opens the address sees the same rows."""
    page = visit("/", java_script_enabled=script)
    page.get_by_text("Status code any").click()
    page.get_by_role("checkbox", name="5130").check()
    page.get_by_role("button", name="Show").click()
    rows = page.locator("table.cards tbody tr")
    expect(rows).to_have_count(2)
    other = visit(page.url, java_script_enabled=script)
    expect(other.locator("table.cards tbody tr")).to_have_count(2)
    expect(other.get_by_text("Status code 5130 Data write error").first).to_be_visible()


@both_ways
def test_the_history_is_paged_through_and_back(visit: Visit, script: bool) -> None:
    """63 syncs are two pages of fifty."""
    page = visit("/", java_script_enabled=script)
    rows = page.locator("table.cards tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("link", name="Next page").click()
    expect(rows).to_have_count(13)
    expect(page.get_by_text("This is the last page.")).to_be_visible()
    page.get_by_role("link", name="First page").click()
    expect(rows).to_have_count(50)


@both_ways
def test_refresh_asks_codat_again(visit: Visit, script: bool, site: Site) -> None:
    """And says so; the timeline has it too."""
    page = visit("/syncs/waiting", java_script_enabled=script)
    page.get_by_role("button", name="Refresh from Codat").click()
    expect(page.get_by_role("status").first).to_contain_text("Codat is being asked")
    expect(page.locator(".verdict")).to_contain_text("Codat has not answered yet")
    expect(page.locator(".timeline")).to_contain_text("Refresh wanted")


@both_ways
def test_failed_items_are_handed_over_to_be_sent_again(
    visit: Visit, script: bool, site: Site
) -> None:
    """And the page says that only a later sync can show whether it helped."""
    page = visit("/syncs/failed-one", java_script_enabled=script)
    page.get_by_role("button", name="Retry failed items").click()
    expect(page.get_by_role("status").first).to_contain_text("being handed over to be sent again")
    expect(page.locator(".timeline")).to_contain_text("Retry")
    with site.database.reading() as connection:
        owed = connection.execute(select(outgoing.c.kind)).scalars().all()
    assert set(owed) == {"retry.requested"}


@both_ways
def test_a_cause_says_what_to_do_and_leads_to_its_syncs(visit: Visit, script: bool) -> None:
    """Who must act, what to tell the customer, which syncs."""
    page = visit("/", java_script_enabled=script)
    page.get_by_role("link", name="Causes").click()
    cause = page.locator("section.cause").filter(has_text="The account is inactive")
    expect(cause).to_contain_text("The customer")
    expect(cause).to_contain_text("please reactivate it")
    cause.get_by_role("link", name="Its syncs").click()
    expect(page.locator("table.cards tbody tr")).to_have_count(1)
    expect(page.get_by_role("link", name="failed-one")).to_be_visible()


def test_a_configuration_is_seen_as_codat_has_it_and_downloaded(visit: Visit) -> None:
    """From the sync where one needs it."""
    page = visit("/syncs/failed-one")
    page.get_by_role("link", name="Config", exact=True).click()
    expect(page.locator("pre")).to_contain_text('"bankAccount"')
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert "bankAccount" in json.loads(Path(download.value.path()).read_text())


@both_ways
def test_signing_out_closes_every_page(visit: Visit, script: bool) -> None:
    """And a wrong key opens none; the right one comes back to where one wanted to go."""
    page = visit("/companies", java_script_enabled=script)
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    page.goto("/companies")
    page.get_by_label("API key").fill("not-one-of-the-keys")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not one of this service's keys")
    page.get_by_label("API key").fill(API_KEY)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/companies")
    expect(page.get_by_role("heading", name="Companies")).to_be_visible()


def test_times_are_the_readers_own_with_script_and_utc_without(visit: Visit) -> None:
    """Both say which."""
    plain = visit("/syncs/failed-one", java_script_enabled=False)
    expect(plain.locator("dl.facts time").first).to_contain_text("UTC")
    local = visit("/syncs/failed-one", timezone_id="Asia/Tokyo", locale="en-GB")
    time = local.locator("dl.facts time").first
    at = datetime.fromisoformat(time.get_attribute("datetime") or "")
    expect(time).to_contain_text(f"{(at + timedelta(hours=9)):%H:%M:%S}")
    assert "UTC" in (time.get_attribute("title") or "")


def test_an_open_page_shows_what_came_since_it_was_opened(visit: Visit, site: Site) -> None:
    """By asking again; a filter that is being filled in is left alone."""
    page = visit("/?q=c3")
    expect(page.get_by_text("No sync fits these filters")).to_be_visible()
    page.get_by_label("Search").fill("half a wo")
    shelf = Shelf(site.database)
    shelf.company("c3")
    shelf.failed("came-later", "c3", at=datetime.now(UTC) - timedelta(days=1))
    page.get_by_label("Keep up to date").uncheck()
    page.get_by_label("Keep up to date").check()
    expect(page.get_by_role("link", name="came-later")).to_be_visible()
    expect(page.get_by_label("Search")).to_have_value("half a wo")
    expect(page.get_by_text("As of")).to_be_visible()


def test_an_open_page_is_brought_up_to_date_with_its_details_open_and_its_focus_kept(
    visit: Visit, site: Site
) -> None:
    """What one has opened to read stays open; what is being marked waits, and the page says so."""
    shelf = Shelf(site.database)
    number = shelf.failed("watched", "c2", items=(failed_item("w1", WRAPPED),))
    page = visit("/syncs/watched")
    whole = page.get_by_text("Codat's whole message")
    whole.click()
    with site.database.writing() as connection:
        connection.execute(update(transactions).where(transactions.c.sync == number).values(
            integration_type="bills"))  # fmt: skip
    fresh = page.locator("[data-fresh]")
    row = page.get_by_role("row").filter(has_text="w1")
    refresh_now(page)
    expect(row).to_contain_text("bills")
    expect(page.locator("details.whole")).to_have_attribute("open", "")
    expect(whole).to_be_focused()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.timeline, .empty'))")
    shelf.note(number, datetime.now(UTC), reason="came later")
    refresh_now(page)
    expect(fresh).to_contain_text("(paused while in use)")
    page.evaluate("getSelection().removeAllRanges()")
    refresh_now(page)
    expect(page.locator(".timeline")).to_contain_text("came later")
    expect(fresh).not_to_contain_text("paused")


def refresh_now(page: Page) -> None:
    """As the passing of time does, without its ten seconds; neither the focus nor a mark moves."""
    page.evaluate("""() => {
        const box = document.querySelector("[data-fresh] input");
        for (const on of [false, true]) {
            box.checked = on;
            box.dispatchEvent(new Event("change"));
        }
    }""")


def test_a_file_of_the_history_is_downloaded(visit: Visit) -> None:
    """With the filters of the page."""
    page = visit("/?outcome=in_progress")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 2
    assert "running" in lines[1]


def test_the_apis_description_loads_nothing_from_elsewhere(visit: Visit, site: Site) -> None:
    """So that it works in a network without a way out."""
    page = visit("/livez")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/docs")
    expect(page.get_by_role("heading", name="Codat Sync for Expenses receiver")).to_be_visible()
    expect(page.get_by_text("/api/v1/push-errors").first).to_be_visible()
    assert [url for url in asked if not url.startswith((site.address, "data:", "blob:"))] == []
