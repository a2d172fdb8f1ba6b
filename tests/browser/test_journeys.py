"""What support staff do on the pages, with scripts and without."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select, update

from app.db.tables import outgoing_messages, transactions
from tests.browser.conftest import CORRELATION, EXPENSE, WRAPPED, Site, Visit
from tests.web.store import failed_row

both_ways = pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])


@both_ways
def test_an_expense_is_found_with_the_reason_why_it_failed(visit: Visit, script: bool) -> None:
    page = visit("/", java_script_enabled=script)
    page.get_by_label("Search").fill(EXPENSE[:8])
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("not in the books")
    expect(page.locator(".result")).to_contain_text("Account inactive")
    page.get_by_role("link", name="failed-one").first.click()
    expect(page.locator(".result")).to_contain_text("2 of 3 items were not recorded")
    row = page.get_by_role("row").filter(has_text=EXPENSE)
    expect(row.get_by_text("Account code '429' is not active.").first).to_be_visible()


@both_ways
def test_the_answer_has_what_to_tell_the_customer(visit: Visit, script: bool) -> None:
    page = visit(f"/?q={EXPENSE}", java_script_enabled=script)
    answer = page.locator(".result")
    for text in ("Not in the books", "Account inactive", "Who acts", "Next step"):
        expect(answer.get_by_text(text).first).to_be_visible()
    message = answer.locator(".say p")
    assert message.evaluate("node => getComputedStyle(node).fontFamily") == page.evaluate(
        "getComputedStyle(document.body).fontFamily"
    )
    button = answer.get_by_role("button", name="Copy message")
    if not script:
        expect(button).to_have_count(0)
        return
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    copied = message.inner_text()
    button.click()  # as on a page that is not served over HTTPS
    expect(answer.get_by_role("button", name="Copied")).to_be_visible()
    expect(button).to_be_visible()
    page.goto("/")
    page.get_by_label("Search").press("Control+V")
    expect(page.get_by_label("Search")).to_have_value(copied)


@both_ways
def test_the_parts_of_a_sync_are_tabs(visit: Visit, script: bool) -> None:
    page = visit("/syncs/failed-one", java_script_enabled=script)
    panels = page.locator(".tab-panels > :visible")
    expect(panels).to_have_count(1)
    expect(page.get_by_role("table", name="Items")).to_be_visible()
    for name, text in (("Timeline", "Checked with Codat"), ("Configuration", "View configuration"),
                       ("Details", "Company ID"), ("Items", EXPENSE)):  # fmt: skip
        page.get_by_role("navigation", name="Parts").get_by_role("link", name=name).press("Enter")
        expect(panels).to_have_count(1)
        expect(panels).to_contain_text(text)
    other = visit("/syncs/failed-one#timeline", java_script_enabled=script)
    expect(other.get_by_text("Checked with Codat")).to_be_visible()


def test_fifty_items_are_within_two_screens(visit: Visit, site: Site) -> None:
    rows = tuple(failed_row(f"{n:08}-5b1e-4a53-9d7e-0c6a7a1f0e11", WRAPPED) for n in range(50))
    site.store.failed("fifty", "fifty", code=5080, rows=rows)
    page = visit("/syncs/fifty")
    page.set_viewport_size({"width": 1280, "height": 900})
    last = page.get_by_role("row").filter(has_text="00000049").bounding_box()
    assert last
    assert last["y"] + last["height"] <= 2 * 900
    row = page.get_by_role("row").filter(has_text="00000007")
    box = row.bounding_box()
    assert box
    assert box["height"] < 30
    row.locator("summary").press("Enter")
    expect(row.get_by_text(CORRELATION, exact=True)).to_be_visible()


@both_ways
def test_a_correlation_id_is_copied_or_selected(visit: Visit, script: bool) -> None:
    allowed = ["clipboard-read", "clipboard-write"]
    page = visit("/syncs/failed-one", java_script_enabled=script, permissions=allowed)
    row = page.get_by_role("row").filter(has_text=EXPENSE)
    row.locator("summary").click()
    expect(row.get_by_text(CORRELATION, exact=True)).to_be_visible()
    if not script:
        expect(page.locator("button.copy:visible")).to_have_count(0)
        return
    row.get_by_role("button", name="Copy correlation ID").click()
    expect(row.get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == CORRELATION


@both_ways
def test_a_filtered_history_can_be_shared_by_its_address(visit: Visit, script: bool) -> None:
    page = visit("/", java_script_enabled=script)
    page.get_by_text("More", exact=True).click()
    page.get_by_role("checkbox", name="5130").check()
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("table.cards tbody tr")).to_have_count(2)
    other = visit(page.url, java_script_enabled=script)
    expect(other.locator("table.cards tbody tr")).to_have_count(2)
    expect(other.get_by_role("link", name="Status code 5130")).to_be_visible()
    other.get_by_role("link", name="Status code 5130").click()
    expect(other).to_have_url(re.compile(r"/$"))


@both_ways
def test_refresh_and_retry_are_requested(visit: Visit, script: bool, site: Site) -> None:
    page = visit("/syncs/waiting", java_script_enabled=script)
    page.get_by_role("button", name="Refresh from Codat").click()
    expect(page.get_by_role("status").first).to_contain_text("Refreshing from Codat…")
    expect(page.locator(".result")).to_contain_text("Waiting for Codat")
    expect(page.locator(".timeline")).to_contain_text("Refresh requested")
    page.goto("/syncs/failed-one")
    page.get_by_role("button", name="Retry failed items").click()
    expect(page.get_by_role("status").first).to_contain_text("Retry ")
    expect(page.locator(".timeline")).to_contain_text("Retry requested")
    with site.store.database.reading() as connection:
        kinds = connection.execute(select(outgoing_messages.c.kind)).scalars().all()
    assert "retry.requested" in kinds


def test_times_are_local_with_scripts_and_utc_without(visit: Visit) -> None:
    plain = visit("/syncs/failed-one", java_script_enabled=False)
    expect(plain.locator("dl.facts time").first).to_contain_text("UTC")
    expect(plain.get_by_text("Times and days: UTC.")).to_be_visible()
    local = visit("/syncs/failed-one", timezone_id="Asia/Tokyo")
    time = local.locator("dl.facts time").first
    at = datetime.fromisoformat(time.get_attribute("datetime") or "")
    expect(time).to_contain_text(f"{(at + timedelta(hours=9)):%H:%M:%S}")
    assert "UTC" in (time.get_attribute("title") or "")
    expect(local.get_by_text("Times and days: Asia/Tokyo (GMT+9).")).to_be_visible()


def test_a_filter_finds_the_days_of_the_reader(visit: Visit, site: Site) -> None:
    late = datetime(2026, 11, 30, 12, 59, tzinfo=UTC)  # 23:59 in Sydney
    site.store.company("sydney", "Harbour Lane")
    for sync_id, at in (("on-30", late), ("on-1", late + timedelta(minutes=1))):
        site.store.failed(sync_id, "sydney", at=at, reported_ended_at=at)
    page = visit("/?company_id=sydney", timezone_id="Australia/Sydney")
    for label in ("From", "To"):
        page.get_by_label(label, exact=True).fill("2026-11-30")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("link", name="on-30")).to_be_visible()
    expect(page.get_by_role("link", name="on-1", exact=True)).to_have_count(0)
    query = parse_qs(urlsplit(page.url).query)
    days = {"from": ["2026-11-30"], "to": ["2026-11-30"], "tz": ["Australia/Sydney"]}
    assert query == {"company_id": ["sydney"], **days}
    for script in (True, False):  # the address means the same to a reader elsewhere
        other = visit(page.url, timezone_id="Europe/Paris", java_script_enabled=script)
        expect(other.get_by_role("link", name="on-30")).to_be_visible()
        expect(other.get_by_role("link", name="on-1", exact=True)).to_have_count(0)
        expect(other.get_by_text("Times and days: Australia/Sydney")).to_be_visible()


def test_recent_times_are_relative_with_the_exact_time_on_hover(visit: Visit, site: Site) -> None:
    now = datetime.now(UTC)
    for minutes in (5, 200, 3000):
        at = now - timedelta(minutes=minutes)
        site.store.failed(f"ended-{minutes}", "recent", at=at, reported_ended_at=at)
    page = visit("/?company_id=recent", timezone_id="Asia/Tokyo")
    times = page.locator("table.cards tbody time")
    exact = now - timedelta(minutes=5) + timedelta(hours=9)
    shown = {time.inner_text(): time.get_attribute("title") or "" for time in times.all()}
    assert {"5 min ago", "3 h ago"} <= set(shown)
    assert f"{exact.day} {exact:%b %Y}" in shown["5 min ago"]
    assert f"{exact:%H:%M}:" in shown["5 min ago"]
    assert any(
        title.startswith(text.split(",")[0]) for text, title in shown.items() if "ago" not in text
    )


def test_an_open_page_refreshes_and_leaves_the_form_alone(visit: Visit, site: Site) -> None:
    page = visit("/?q=c3")
    expect(page.get_by_text("No syncs match.")).to_be_visible()
    page.get_by_label("Search").fill("half a wo")
    site.store.company("c3")
    site.store.failed("came-later", "c3", at=datetime.now(UTC) - timedelta(days=1))
    page.get_by_label("Auto-refresh").uncheck()
    page.get_by_label("Auto-refresh").check()
    expect(page.get_by_role("link", name="came-later")).to_be_visible()
    expect(page.get_by_label("Search")).to_have_value("half a wo")
    expect(page.get_by_text("Updated ")).to_be_visible()


def test_a_refresh_keeps_details_open_and_waits_for_a_selection(visit: Visit, site: Site) -> None:
    pk = site.store.failed("watched", "c2", rows=(failed_row("w1", WRAPPED),))
    page = visit("/syncs/watched")
    summary = page.locator("details.line > summary")
    summary.click()
    statement = update(transactions).where(transactions.c.sync_pk == pk)
    with site.store.database.writing() as connection:
        connection.execute(statement.values(integration_type="bills"))
    refresh_now(page)
    expect(page.get_by_role("row").filter(has_text="w1")).to_contain_text("bills")
    expect(page.locator("details.line")).to_have_attribute("open", "")
    expect(summary).to_be_focused()
    page.goto("/syncs/watched#timeline")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.timeline, .empty'))")
    site.store.log(pk, "came later", at=datetime.now(UTC))
    refresh_now(page)
    status = page.locator("[data-auto-refresh]")
    expect(status).to_contain_text("(paused while you're selecting text)")
    page.evaluate("getSelection().removeAllRanges()")
    refresh_now(page)
    expect(page.locator(".timeline")).to_contain_text("came later")
    expect(status).not_to_contain_text("paused")


def refresh_now(page: Page) -> None:
    """Refresh as the timer does, without moving the focus or the selection."""
    page.evaluate("""() => {
        const box = document.querySelector("[data-auto-refresh] input");
        for (const on of [false, true]) {
            box.checked = on;
            box.dispatchEvent(new Event("change"));
        }
    }""")


def test_the_api_docs_load_nothing_from_elsewhere(visit: Visit, site: Site) -> None:
    page = visit("/livez")
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto("/docs")
    expect(page.get_by_role("heading", name="Codat Sync for Expenses receiver")).to_be_visible()
    expect(page.get_by_text("/api/v1/push-errors").first).to_be_visible()
    ours = (site.address, "data:", "blob:")
    assert [url for url in requested if not url.startswith(ours)] == []
