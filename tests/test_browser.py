"""The pages in a real browser: each journey of support staff, with script and without, by keyboard.

Needs a Chromium on the machine (`apt install chromium`); CI must have one.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect, sync_playwright

from app.main import create_app
from app.settings import load_settings
from app.storage.database import Database, open_database
from tests.processes import API_KEY, CODAT_KEY, SECRET, free_port, wait_for
from tests.web.shelf import Shelf, done_item, failed_item

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
EXPENSE = "3f1c2a00-5b1e-4a53-9d7e-0c6a7a1f0e11"
CORRELATION = f"corr-{EXPENSE}"
WRAPPED = (
    "An error occurred in a downstream service. Correlation ID: "
    "aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb. Message:  Account code '429' is not active."
)
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PAGES = {
    "health": "/",
    "sync": "/syncs/failed-one",
    "running": "/syncs/running",
    "companies": "/companies",
    "company": "/companies/c1",
    "transaction": f"/companies/c1/transactions/{EXPENSE}",
    "events": "/events",
    "event": "/events/m1",
    "unknown": "/syncs/no-such-sync",
}


@dataclass
class Site:
    """The service, and what it was asked to ask Codat about."""

    address: str
    database: Database


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The real application with something to see, on loopback; no worker, so nothing changes."""
    path = tmp_path_factory.mktemp("site") / "syncs.db"
    shutil.copy(sqlite_template, path)
    url = f"sqlite:///{path}"
    database = open_database(url)
    fill(Shelf(database))
    settings = load_settings(
        database_url=url, api_keys=API_KEY, codat_api_key=CODAT_KEY, codat_webhook_secrets=SECRET,
        worker_in_web=False,
    )  # fmt: skip
    with served(create_app(settings)) as address:
        yield Site(address, database)
    database.close()


def fill(shelf: Shelf) -> None:
    """Two companies, sixty syncs of today, one of them failed in a way worth a look."""
    now = datetime.now(UTC).replace(microsecond=0)
    shelf.company("c1", "Toft stores")
    shelf.company("c2", "Old Mill Brewing")
    number = shelf.failed(
        "failed-one",
        at=now - timedelta(minutes=1),
        items=(failed_item(EXPENSE, WRAPPED), failed_item("t2", "Closed"), done_item("t3")),
        error_message=WRAPPED,
    )
    shelf.note(number, now, reason="Codat says 5130")
    shelf.fetch(number, "settled", attempts=1)
    shelf.sync("running", "c2", at=now - timedelta(minutes=2))
    shelf.failed("waiting", "c2", items=None, at=now - timedelta(minutes=3))
    for minute in range(60):
        shelf.done(f"done-{minute:02}", "c2", at=now - timedelta(minutes=4 + minute))
    shelf.event("m1", reading="unreadable", reason="it is not JSON", body=b"{oops")


@contextmanager
def served(app: Any) -> Iterator[str]:
    port = free_port()
    config = uvicorn.Config(app, port=port, log_config=None, lifespan="on", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        told = f"no browser: none of {', '.join(NAMES)} is on this machine"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    with sync_playwright() as playwright:
        # as root, and in most containers, Chromium cannot make a sandbox of its own
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def entered(browser: Browser, site: Site) -> StorageState:
    """What a browser keeps once somebody has signed in."""
    context = browser.new_context(base_url=site.address)
    sign_in(context.new_page())
    kept = context.storage_state()
    context.close()
    return kept


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, site: Site, entered: StorageState) -> Iterator[Visit]:
    """Opens a page in a fresh browser profile, signed in; errors on the page fail the test."""
    opened: list[BrowserContext] = []
    wrong: list[str] = []

    def open_page(path: str = "/", *, signed_in: bool = True, **how: Any) -> Page:
        how |= {"storage_state": entered} if signed_in else {}
        context = browser.new_context(base_url=site.address, **how)
        opened.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if refused(said.text) else None)
        page.goto(path)
        return page

    yield open_page
    for context in opened:
        context.close()
    assert wrong == []


def refused(said: str) -> bool:
    """Whether the browser says that our own policy stopped something of ours."""
    return "Content Security Policy" in said or "violates" in said


def sign_in(page: Page) -> None:
    page.goto("/sign-in")
    page.get_by_label("API key").fill(API_KEY)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")


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
    expect(page.locator(".verdict")).to_contain_text("2 of 3 rows did not reach")
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


def test_a_file_of_the_history_is_downloaded(visit: Visit) -> None:
    """With the filters of the page."""
    page = visit("/?outcome=in_progress")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 2
    assert "running" in lines[1]
