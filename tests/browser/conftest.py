"""The service with something to see, and a real browser to look at it.

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
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect, sync_playwright

from app.bootstrap import create_app
from app.db.engine import Database, open_database
from app.settings import load_settings
from tests.ports import free_port
from tests.processes import API_KEY, CODAT_KEY, SECRET, TLS, stage, wait_for
from tests.receiver import SIGNING_SECRET, Receiver, receiver
from tests.web.shelf import Shelf, done_item, failed_item

expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXPENSE = "3f1c2a00-5b1e-4a53-9d7e-0c6a7a1f0e11"
WRAPPED = (
    "An error occurred in a downstream service. Correlation ID: "
    "aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb. Message:  Account code '429' is not active."
)


@dataclass
class Site:
    """The service, what it keeps, and who takes what is to be sent again."""

    address: str
    database: Database
    retries: Receiver


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The real application with something to see, on loopback; no worker, so nothing changes."""
    path = tmp_path_factory.mktemp("site") / "syncs.db"
    shutil.copy(sqlite_template, path)
    url = f"sqlite:///{path}"
    database = open_database(url)
    fill(Shelf(database))
    with stage(path.parent, url) as playing, receiver() as retries:
        codat = playing.simulate()
        company = {"name": "Toft stores", "company_id": "c1"}
        httpx.post(f"{codat}/_sim/companies", json=company, verify=TLS).raise_for_status()
        settings = load_settings(
            database_url=url, api_keys=API_KEY, codat_api_key=CODAT_KEY, codat_base_url=codat,
            codat_webhook_secrets=SECRET, worker_in_web=False,
            retry_webhook_url=retries.address, notify_signing_secret=SIGNING_SECRET,
        )  # fmt: skip
        with served(create_app(settings)) as address:
            yield Site(address, database, retries)
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
        context.set_default_timeout(20_000)
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
