"""Reading and using pages in tests."""

import csv
import io
import re
from html import unescape

from fastapi.testclient import TestClient

from app.web.pages.sessions import COOKIE
from tests.web.store import KEY


def sign_in(client: TestClient) -> None:
    response = client.post("/sign-in", data={"key": KEY}, follow_redirects=False)
    assert response.status_code == 303, response.text


def session_cookies(client: TestClient) -> list[str]:
    """The names of the session cookies of this browser."""
    return [name for name in client.cookies if name.startswith(COOKIE)]


def form_token(client: TestClient) -> str:
    """The token that the forms of this session carry."""
    found = re.search(r'name="csrf" value="(\w+)"', client.get("/companies").text)
    assert found
    return found[1]


def text(html: str) -> str:
    """What people read in the main part of a page: no tags, single spaces."""
    main = re.sub(r"(?s).*<main[^>]*>|</main>.*", "", html)
    spaced = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", main)))
    return re.sub(r" ([.,:;)])|(\() ", r"\1\2", spaced)


def read(client: TestClient, path: str, status: int = 200) -> str:
    """The text of a page."""
    response = client.get(path)
    assert response.status_code == status, response.text
    return text(response.text)


def links(html: str, part: str = "") -> list[str]:
    """The addresses that a page links to and that contain this part."""
    found = map(unescape, re.findall(r'href="([^"]*)"', html))
    return [link for link in found if part in link]


def sync_ids(html: str) -> list[str]:
    """The syncs that a page links to, in its order."""
    return [link.split("/")[2].split("?")[0] for link in links(html, "/syncs/")]


def read_csv(client: TestClient, path: str, column: str, separator: str = ",") -> set[str]:
    """A column of a CSV file."""
    response = client.get(path)
    assert response.headers["content-type"].startswith("text/csv")
    return {
        row[column]
        for row in csv.DictReader(
            io.StringIO(response.content.decode("utf-8-sig")), delimiter=separator
        )
    }
