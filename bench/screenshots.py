"""Screenshots of the main pages, light and dark, taken from the demo: `make screenshots`.

Starts the demo, waits until it has enough to show, and writes PNG files.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
from playwright.sync_api import Browser, ViewportSize, sync_playwright

from bench.harness import make_parser
from tests.processes import ROOT, wait_for

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
    with httpx.Client(base_url=f"{address}/api/v1", headers=headers, timeout=10) as api:

        def smallest() -> Any:
            total = api.get("/stats").raise_for_status().json()["total"]
            failed = api.get("/syncs", params={"outcome": "partly_failed"}).json()["items"]
            fetched = [sync for sync in failed if sync["errors"]["state"] == "fetched"]
            if total < MIN_SYNCS or not fetched:
                return None
            return min(fetched, key=lambda sync: sync["transactions"]["total"])

        found: dict[str, str] = wait_for(smallest, MAX_WAIT_S)
        return found


def take_screenshots(browser: Browser, address: str, key: str, folder: Path) -> None:
    """Every page in both color schemes, and the first one on a phone."""
    ids = wait_for_data(address, key)
    paths = {
        "health": "/",
        "sync": f"/syncs/{ids['sync_id']}",
        "companies": "/companies",
        "company": f"/companies/{ids['company_id']}",
        "causes": "/causes",
        "events": "/events",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        page = browser.new_page(viewport=DESKTOP, color_scheme=scheme, timezone_id="UTC")
        page.goto(f"{address}/sign-in")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{address}/")
        for name, path in paths.items():
            response = page.goto(address + path)
            if not (response and response.ok):
                raise SystemExit(f"{path} could not be opened")
            page.screenshot(path=folder / f"{name}-{scheme}.png")
        page.set_viewport_size(PHONE)
        page.goto(address)
        page.screenshot(path=folder / f"phone-{scheme}.png")
        page.close()


def main() -> None:
    """Take the screenshots."""
    parser = make_parser("screenshots", __doc__)
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder for the screenshots")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with run_demo() as (address, key), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take_screenshots(browser, address, key, options.to)
        browser.close()
    print(f"screenshots are in {options.to}")


if __name__ == "__main__":
    main()
