"""Accessibility: by keyboard alone, in light and dark, at every width."""

from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.db import alerts
from app.domain.webhook_loss import Finding
from app.web.pages import labels
from tests.browser.conftest import EXPENSE, Site, Visit
from tests.web.store import KEY, failed_row

SCHEMES: dict[Literal["light", "dark"], dict[str, Any]] = {
    "light": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
    "dark": {"type": "rule", "values": ["color-contrast"]},  # only colors differ
}
OPEN_ALL = """
document.querySelectorAll("details").forEach(node => { node.open = true });
document.querySelectorAll(".fold-toggle input").forEach(node => { node.checked = true });
"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
WORDS_ON_TWO_LINES = """cell => {
    const found = [], walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        for (const match of node.data.matchAll(/[A-Za-z]+/g)) {
            const range = document.createRange();
            range.setStart(node, match.index);
            range.setEnd(node, match.index + match[0].length);
            if (range.getClientRects().length > 1) found.push(match[0]);
        }
    }
    return found;
}"""
PAGES = ["/sign-in", "/", "/?from=x", "/syncs/failed-one", "/syncs/waiting", "/syncs/no-such-sync",
         "/companies", "/companies/c1", "/companies/c1/config", "/causes",
         "/causes/account_inactive", "/causes?owner=customer&sort=title",
         "/retries?cause=account_inactive", "/companies?cannot_sync=true",
         f"/companies/c1/transactions/{EXPENSE}", "/events", "/events/m1", "/outgoing",
         "/outgoing/1", "/setup/codat", "/syncs/failed-one#timeline",
         "/syncs/failed-one#configuration", "/syncs/failed-one#details"]  # fmt: skip


def test_a_sync_is_found_by_keyboard_alone(visit: Visit) -> None:
    page = visit("/sign-in", signed_in=False)
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    page.wait_for_url("**/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    reach(page, "input[name=q]")
    page.keyboard.type("stores")
    reach(page, "summary:has-text('Status')")
    page.keyboard.press("Enter")
    reach(page, "input[name=outcome][value=partly_failed]")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    expect(page.locator("summary:has-text('Status')")).to_be_focused()
    reach(page, "button:has-text('Apply')")
    page.keyboard.press("Enter")
    page.wait_for_url("**outcome=partly_failed**")
    reach(page, "a:text-is('failed-one')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/syncs/failed-one**")
    reach(page, "button:has-text('Refresh from Codat')")


def reach(page: Page, selector: str, limit: int = 80) -> None:
    """Press Tab until the element has the focus; every focused element has a visible outline."""
    target = page.locator(selector).first
    for _ in range(limit):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if focused.count():
            outline = focused.evaluate("element => getComputedStyle(element).outlineStyle")
            assert outline != "none", focused.evaluate("element => element.outerHTML")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{selector} was not reached by {limit} presses of Tab")


@pytest.mark.parametrize("path", PAGES)
def test_each_page_is_accessible_and_fits_every_screen(visit: Visit, path: str) -> None:
    page = visit(path, signed_in=path != "/sign-in")
    for script in ("", OPEN_ALL):
        page.evaluate(script or "0")
        for width in (320, 390, 768, 900, 1024, 1280, 1920):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate(OVERFLOW) <= 0, (width, script)
    for scheme, rules in SCHEMES.items():
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options={"runOnly": rules})
        assert [
            (violation["id"], [node["html"] for node in violation["nodes"]])
            for violation in found.response["violations"]
            if violation["impact"] in ("serious", "critical")
        ] == []


@pytest.mark.parametrize("width", [390, 900, 1024, 1280])
def test_each_open_menu_is_on_the_screen(visit: Visit, width: int) -> None:
    page = visit("/")
    page.set_viewport_size({"width": width, "height": 900})
    if width == 390:
        expect(page.get_by_label("From", exact=True)).to_be_hidden()
        page.get_by_role("checkbox", name="Filters").check()
    for menu in page.locator("details.menu").all():
        menu.locator("summary").click()
        box = menu.locator(".panel").bounding_box()
        assert box, menu.inner_text()
        assert box["x"] >= 0, menu.inner_text()
        assert box["x"] + box["width"] <= width, menu.inner_text()
        assert page.evaluate(OVERFLOW) <= 0
        page.keyboard.press("Escape")


def test_words_are_not_broken_inside(visit: Visit) -> None:
    page = visit("/?outcome=partly_failed")
    for width in (900, 1024, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        for cell in page.locator("table.history td").all():
            words = cell.evaluate(WORDS_ON_TWO_LINES)
            assert words == [], (width, words)


def test_long_texts_do_not_make_a_page_scroll_sideways(visit: Visit, site: Site) -> None:
    store, name = site.store, "W" * 120
    store.company("c9", name)
    store.failed("s9", "c9", at=datetime.now(UTC), rows=(failed_row("t9", "Closed"),))
    store.event("m9", parse_status="unknown", raw_type="expenses." + "x" * 90, company_id="c9")
    findings = [
        Finding("webhooks_lost", "c9", f"No webhooks for {name}"),
        Finding(f"{alerts.FAILURE_PREFIX}permission", "c9", "not recorded"),
    ]
    causes = {finding.cause for finding in findings}
    with store.database.writing() as connection:
        alerts.sync_alerts(connection, causes, findings, datetime.now(UTC))
    columns = "&".join(f"column={name}" for name in labels.COLUMNS)
    for path in ("/", f"/?company_id=c9&{columns}", "/companies", "/causes?company_id=c9",
                 "/syncs/s9", "/companies/c9", "/events?show=all", "/events/m9"):  # fmt: skip
        page = visit(path)
        for width in (320, 390, 900, 1024, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate(OVERFLOW) <= 0, (path, width)
