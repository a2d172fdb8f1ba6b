"""Accessibility: by keyboard alone, in light and dark, at every width."""

from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.db import alerts
from app.domain.webhook_loss import Finding
from tests.browser.conftest import EXPENSE, Site, Visit
from tests.web.store import KEY, failed_row

SCHEMES: dict[Literal["light", "dark"], dict[str, Any]] = {
    "light": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
    "dark": {"type": "rule", "values": ["color-contrast"]},  # only colors differ
}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PAGES = ["/sign-in", "/", "/?from=x", "/syncs/failed-one", "/syncs/waiting", "/syncs/no-such-sync",
         "/companies", "/companies/c1", "/companies/c1/config", "/causes",
         "/causes/account_inactive", f"/companies/c1/transactions/{EXPENSE}", "/events",
         "/events/m1"]  # fmt: skip


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
    page.keyboard.type("toft")
    reach(page, "summary:has-text('Outcome')")
    page.keyboard.press("Enter")
    reach(page, "input[name=outcome][value=partly_failed]")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    expect(page.locator("summary:has-text('Outcome')")).to_be_focused()
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
    for width in (320, 390, 768, 1024, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(OVERFLOW) <= 0, width
    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true })")
    for scheme, rules in SCHEMES.items():
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options={"runOnly": rules})
        assert [
            (violation["id"], [node["html"] for node in violation["nodes"]])
            for violation in found.response["violations"]
            if violation["impact"] in ("serious", "critical")
        ] == []


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
    for path in ("/", "/?q=t9", "/companies", "/causes?company_id=c9", "/events", "/events/m9"):
        page = visit(path)
        for width in (320, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate(OVERFLOW) <= 0, (path, width)
