"""The real application with sample data, and a browser that visits its pages.

Needs Chromium on the machine (`apt install chromium`); in CI a missing one fails the tests.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect, sync_playwright

from app.bootstrap import create_app
from app.db import outgoing, workers
from app.db.engine import open_database
from app.domain.outgoing import recipient_name
from app.settings import load_settings
from tests.ports import free_port
from tests.processes import SECRET, wait_for
from tests.web.conftest import FakeCodat
from tests.web.store import KEY, Store, completed_row, failed_row

expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXPENSE = "3f1c2a00-5b1e-4a53-9d7e-0c6a7a1f0e11"
CORRELATION = "aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb"
HOOK = "https://ours.test/hook"
ALERT = {"cause": "x", "company_id": "c1", "text": "x", "opened_at": datetime.now(UTC)}
WRAPPED = (
    f"An error occurred in a downstream service. Correlation ID: {CORRELATION}. "
    "Message:  Account code '429' is not active."
)


@dataclass
class Site:
    """The running application and what fills its database."""

    address: str
    store: Store


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The application without a worker, so that only the tests change its data."""
    url = f"sqlite:///{shutil.copy(sqlite_template, tmp_path_factory.mktemp('site'))}"
    settings = load_settings(
        database_url=url, api_keys=KEY, codat_api_key="codat-key", codat_webhook_secrets=SECRET,
        retry_webhook_url="https://retry.test/hook", notify_signing_secret=SECRET,
        notify_webhook_urls=HOOK, worker_in_web=False,
    )  # fmt: skip
    app = create_app(settings)
    app.state.codat = FakeCodat()
    app.state.check_codat = app.state.codat.check
    store = Store(open_database(url))
    fill(store)
    with serve(app) as address:
        yield Site(address, store)
    store.database.close()


def fill(store: Store) -> None:
    """Two companies and 63 syncs of today; one failed in a way worth reading."""
    now = datetime.now(UTC).replace(microsecond=0)
    with store.database.writing() as connection:
        workers.beat(connection, "w1", now + timedelta(hours=1))
    store.company("c1", "Toft stores")
    store.company("c2", "Old Mill Brewing")
    rows = (failed_row(EXPENSE, WRAPPED), failed_row("t2", "Closed"), completed_row("t3"))
    at = now - timedelta(minutes=1)
    pk = store.failed("failed-one", at=at, rows=rows, error_message=WRAPPED)
    store.log(pk, "Codat status 5130 (data write error): 2 of 3 items failed", at=now)
    store.job(pk, "done", attempts=1)
    store.sync("running", "c2", at=now - timedelta(minutes=2))
    store.failed("waiting", "c2", rows=None, at=now - timedelta(minutes=3))
    for minute in range(60):
        store.completed(f"done-{minute:02}", "c2", at=now - timedelta(minutes=4 + minute))
    with store.database.writing() as connection:
        outgoing.alerts(connection, "alert.opened", [ALERT], now)
        outgoing.address(connection, [recipient_name("webhook", HOOK)], now)
    store.event("m1", parse_status="unreadable", parse_error="Invalid JSON: x", body=b"{oops")


@contextmanager
def serve(app: Any) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = f"no browser found: install one of {', '.join(BROWSERS)}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # as root, and in most containers, Chromium cannot make a sandbox of its own
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def session(browser: Browser, site: Site) -> StorageState:
    """The cookies of a browser that has signed in."""
    context = browser.new_context(base_url=site.address)
    page = context.new_page()
    page.goto("/sign-in")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")
    state = context.storage_state()
    context.close()
    return state


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, site: Site, session: StorageState) -> Iterator[Visit]:
    """Opens a page in a new profile, signed in; an error of script or policy fails the test."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []
    logged: list[str] = []

    def open_page(path: str = "/", *, signed_in: bool = True, **options: Any) -> Page:
        options |= {"storage_state": session} if signed_in else {}
        context = browser.new_context(base_url=site.address, **options)
        contexts.append(context)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: logged.append(message.text))
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    problems += [text for text in logged if "Content Security Policy" in text or "violates" in text]
    assert problems == []
