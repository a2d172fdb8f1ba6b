"""Screenshots of the main pages, light and dark, taken from the demo: `make screenshots`.

Starts the demo, waits until it has enough to show, and writes PNG files.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "screenshots"
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
MIN_SYNCS = 30
MAX_WAIT_S = 240


@contextmanager
def run_demo() -> Iterator[tuple[str, str]]:
    """The running demo: its address and its API key."""
    command = [sys.executable, "-u", "-m", "app", "demo"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _read_greeting(process)
        finally:
            process.terminate()


def _read_greeting(process: subprocess.Popen[str]) -> tuple[str, str]:
    output = ""
    for line in process.stdout or ():
        output += line
        found = re.search(r"Open +(\S+)/\s+Sign in +(\S+)", output)
        if found:
            return found[1], found[2]
    raise SystemExit(f"the demo did not start:\n{output}")


def wait_for_data(address: str, key: str) -> dict[str, str]:
    """Wait until there is enough to show; the company and sync ID of a sync that partly failed."""
    headers = {"Authorization": f"Bearer {key}"}
    deadline = time.monotonic() + MAX_WAIT_S
    with httpx.Client(base_url=f"{address}/api/v1", headers=headers, timeout=10) as api:
        while time.monotonic() < deadline:
            total = api.get("/stats").raise_for_status().json()["total"]
            failed = api.get("/syncs", params={"outcome": "partly_failed"}).json()["items"]
            fetched = [sync for sync in failed if sync["errors"]["state"] == "fetched"]
            if total >= MIN_SYNCS and fetched:
                smallest = min(fetched, key=lambda sync: sync["transactions"]["total"])
                return {name: smallest[name] for name in ("sync_id", "company_id")}
            time.sleep(1)
    raise SystemExit(f"the demo had too few syncs after {MAX_WAIT_S} s")


def page_paths(ids: dict[str, str]) -> dict[str, str]:
    """The path of each page, by the name of its screenshot."""
    return {
        "health": "/",
        "sync": f"/syncs/{ids['sync_id']}",
        "companies": "/companies",
        "company": f"/companies/{ids['company_id']}",
        "causes": "/causes",
        "events": "/events",
    }


def sign_in(page: Page, address: str, key: str) -> None:
    """Sign in as a user does."""
    page.goto(f"{address}/sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{address}/")


def take_screenshots(
    browser: Browser, address: str, key: str, folder: Path, *, full_page: bool
) -> None:
    """Every page in both color schemes, and the first one on a phone."""
    paths = page_paths(wait_for_data(address, key))
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        page = browser.new_page(viewport=DESKTOP, color_scheme=scheme, timezone_id="UTC")
        sign_in(page, address, key)
        for name, path in paths.items():
            response = page.goto(address + path)
            if not (response and response.ok):
                raise SystemExit(f"{path} could not be opened")
            page.screenshot(path=folder / f"{name}-{scheme}.png", full_page=full_page)
        page.set_viewport_size(PHONE)
        page.goto(address)
        page.screenshot(path=folder / f"phone-{scheme}.png", full_page=full_page)
        page.close()


def main() -> None:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder for the screenshots")
    parser.add_argument("--full-page", action="store_true", help="whole pages, not one screen")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with run_demo() as (address, key), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take_screenshots(browser, address, key, options.to, full_page=options.full_page)
        browser.close()
    print(f"screenshots are in {options.to}")


if __name__ == "__main__":
    main()
