"""Pictures of the main pages, light and dark, taken from the demo: `make screenshots`.

Starts the demo, waits until its morning has something to show, and writes PNG files.
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
PLACE = ROOT / "docs" / "screenshots"
WIDE: ViewportSize = {"width": 1280, "height": 900}
NARROW: ViewportSize = {"width": 390, "height": 844}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
ENOUGH_SYNCS = 30
LONGEST_WAIT_S = 240


@contextmanager
def demo() -> Iterator[tuple[str, str]]:
    """The running demo: its address and its key."""
    command = [sys.executable, "-u", "-m", "app", "demo"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _greeted(process)
        finally:
            process.terminate()


def _greeted(process: subprocess.Popen[str]) -> tuple[str, str]:
    told = ""
    for line in process.stdout or ():
        told += line
        found = re.search(r"Open +(\S+)/\s+Sign in +(\S+)", told)
        if found:
            return found[1], found[2]
    raise SystemExit(f"the demo did not start:\n{told}")


def wait_until_lively(address: str, key: str) -> dict[str, str]:
    """Wait until there is enough to see; the ids of what is worth a page of its own."""
    headers = {"Authorization": f"Bearer {key}"}
    end = time.monotonic() + LONGEST_WAIT_S
    with httpx.Client(base_url=f"{address}/api/v1", headers=headers, timeout=10) as api:
        while time.monotonic() < end:
            total = api.get("/stats").raise_for_status().json()["total"]
            failed = api.get("/syncs", params={"outcome": "partly_failed"}).json()["items"]
            settled = [each for each in failed if each["errors"]["state"] == "fetched"]
            if total >= ENOUGH_SYNCS and settled:
                chosen = min(settled, key=lambda each: each["transactions"]["total"])
                return {name: chosen[name] for name in ("sync_id", "company_id")}
            time.sleep(1)
    raise SystemExit("the demo's morning was not lively in time")


def pages(ids: dict[str, str]) -> dict[str, str]:
    """What is shown, by the name of its picture."""
    return {
        "health": "/",
        "sync": f"/syncs/{ids['sync_id']}",
        "companies": "/companies",
        "company": f"/companies/{ids['company_id']}",
        "causes": "/causes",
        "events": "/events",
    }


def sign_in(page: Page, address: str, key: str) -> None:
    """Sign in as a person would."""
    page.goto(f"{address}/sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{address}/")


def shoot(browser: Browser, address: str, key: str, place: Path, *, whole: bool) -> None:
    """Every page in both schemes, and the first one on a phone."""
    shown = pages(wait_until_lively(address, key))
    place.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        page = browser.new_page(viewport=WIDE, color_scheme=scheme, timezone_id="UTC")
        sign_in(page, address, key)
        for name, path in shown.items():
            answer = page.goto(address + path)
            if not (answer and answer.ok):
                raise SystemExit(f"{path} could not be shown")
            page.screenshot(path=place / f"{name}-{scheme}.png", full_page=whole)
        page.set_viewport_size(NARROW)
        page.goto(address)
        page.screenshot(path=place / f"phone-{scheme}.png", full_page=whole)
        page.close()


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=PLACE, help="folder for the pictures")
    parser.add_argument("--whole", action="store_true", help="whole pages, not what a screen shows")
    told = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with demo() as (address, key), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shoot(browser, address, key, told.to, whole=told.whole)
        browser.close()
    print(f"pictures are in {told.to}")


if __name__ == "__main__":
    main()
