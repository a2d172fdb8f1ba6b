"""Nobody is shut out: by keyboard alone, by what they see, by the width of their screen."""

from datetime import UTC, datetime
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.db import alerts
from app.domain.webhook_loss import Finding
from tests.browser.conftest import EXPENSE, Site, Visit
from tests.processes import API_KEY
from tests.web.shelf import Shelf, failed_item

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PAGES = {
    "health": "/",
    "sync": "/syncs/failed-one",
    "running": "/syncs/running",
    "causes": "/causes",
    "config": "/companies/c1/config",
    "companies": "/companies",
    "company": "/companies/c1",
    "transaction": f"/companies/c1/transactions/{EXPENSE}",
    "events": "/events",
    "event": "/events/m1",
    "unknown": "/syncs/no-such-sync",
}


def test_everything_is_reached_by_keyboard_alone(visit: Visit) -> None:
    """Sign in, skip to the content, search, choose a filter, open a sync; focus is always seen."""
    page = visit("/sign-in", signed_in=False)
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(API_KEY)
    page.keyboard.press("Enter")
    page.wait_for_url("**/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    reach(page, "input[name=q]")
    page.keyboard.type("toft")
    reach(page, "summary:has-text('Outcome')")
    page.keyboard.press("Enter")
    reach(page, "input[name=outcome][value=partly_failed]")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    expect(page.locator("summary:has-text('Outcome')")).to_be_focused()
    reach(page, "button:has-text('Show')")
    page.keyboard.press("Enter")
    page.wait_for_url("**outcome=partly_failed**")
    reach(page, "a:text-is('failed-one')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/syncs/failed-one**")
    reach(page, "button:has-text('Refresh from Codat')")


def reach(page: Page, selector: str, most: int = 80) -> None:
    """Press Tab until the element has the focus, which must be visible all the way."""
    wanted = page.locator(selector).first
    for _ in range(most):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if focused.count():
            outline = focused.evaluate("element => getComputedStyle(element).outlineStyle")
            assert outline != "none", focused.evaluate("element => element.outerHTML")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{selector} was not reached by {most} presses of Tab")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*PAGES, "sign-in"])
def test_no_page_shuts_anybody_out(
    visit: Visit, name: str, scheme: Literal["light", "dark"]
) -> None:
    """axe finds nothing serious against WCAG 2.2 AA, whichever colours the reader prefers."""
    path = PAGES.get(name, "/sign-in")
    page = visit(path, color_scheme=scheme, signed_in=name in PAGES)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": WCAG}})
    serious = [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found.response["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("name", PAGES)
def test_no_page_scrolls_sideways(visit: Visit, name: str) -> None:
    """From a phone to a wide screen."""
    page = visit(PAGES[name])
    for width in (320, 390, 768, 1024, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(SIDEWAYS) <= 0, width


def test_long_words_of_others_do_not_make_a_page_scroll_sideways(visit: Visit, site: Site) -> None:
    """A company's name without a blank, an event's type, a number of alerts."""
    shelf, name = Shelf(site.database), "W" * 120
    shelf.company("c9", name)
    shelf.failed("s9", "c9", at=datetime.now(UTC), items=(failed_item("t9", "Closed"),))
    shelf.event("m9", reading="unknown", event_type="expenses.sync." + "x" * 90, company_id="c9")
    lost = Finding("webhooks_lost", "c9", "nothing heard of " + name)
    failing = Finding("push_error:permission", "c9", "not in the books")
    with site.database.writing() as connection:
        alerts.turn(connection, {lost.cause, failing.cause}, [lost, failing], datetime.now(UTC))
    for path in ("/", "/?q=t9", "/companies", "/causes?company_id=c9", "/events", "/events/m9"):
        page = visit(path)
        for width in (320, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate(SIDEWAYS) <= 0, (path, width)
