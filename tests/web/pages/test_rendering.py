"""What all pages have in common: headers, static files, escaping, addresses, errors."""

import re
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from app.db.queries import syncs
from app.domain.models import Transaction
from app.errors import DatabaseUnavailable
from app.web.api.query_params import CauseParams, CompanyParams, SyncParams
from app.web.pages.events import EventPageParams
from app.web.pages.query_params import describe_error
from app.web.pages.syncs import SyncPageParams
from tests.web.pages.html import links, read, text
from tests.web.store import Store, failed_row

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
PAGES = ["/", "/syncs/s1", "/companies", "/companies/c1", "/companies/c1/transactions/t1",
         "/causes", "/causes/account_inactive", "/events", "/events/m1", "/sign-in",
         "/syncs/unknown", "/?limit=x"]  # fmt: skip
HEADERS = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


@pytest.mark.parametrize("path", PAGES)
def test_each_page_is_strict_about_scripts_and_frames(
    store: Store, user: TestClient, path: str
) -> None:
    store.failed()
    store.event("m1")
    response = user.get(path, follow_redirects=False)
    policy = response.headers["content-security-policy"]
    for directive in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'self'"):
        assert directive in policy
    assert "unsafe" not in policy
    assert response.headers.items() >= HEADERS.items()
    inline = r"<style|\sstyle=|\son\w+=|<script(?! src=\"/static/)"
    assert not re.search(inline, response.text)
    assert not re.search(r"(src|href)=\"(https?:)?//", response.text)


def test_stored_texts_never_become_html(store: Store, user: TestClient) -> None:
    store.company(EVIL, EVIL)
    pk = store.failed(
        EVIL, EVIL, error_message=EVIL, exception_message=EVIL, failure_stage=EVIL,
        rows=(Transaction(EVIL, EVIL + "Failed", EVIL, EVIL), failed_row("t2")),
    )  # fmt: skip
    store.job(pk, "dead", attempts=1, last_error=EVIL)
    store.log(pk, EVIL, EVIL)
    store.event(EVIL, raw_type=EVIL, parse_status="unreadable", parse_error=EVIL)
    paths = {"/", "/companies", "/events", f"/causes?company_id={quote(EVIL)}"}
    for start in list(paths):
        found = links(user.get(start).text, "script")
        paths |= {link for link in found if ".csv" not in link}
    assert len(paths) >= 6
    for path in paths:
        response = user.get(path)
        assert response.status_code == 200, path
        assert "<script>" not in response.text
        assert "<img src=x" not in response.text


def test_ids_with_any_character_have_pages_that_links_reach(store: Store, user: TestClient) -> None:
    strange = "a/b?c#d %2F&é"
    store.failed(strange, strange, rows=(failed_row(strange),))
    found = links(user.get("/").text, "a%2Fb")
    assert found
    for link in found:
        assert user.get(link).status_code == 200, link
    page = user.get(next(link for link in found if "/syncs/" in link))
    (item,) = set(links(page.text, "/transactions/"))
    assert "Not in the books" in read(user, item)


def test_static_files_are_cached_by_their_version(user: TestClient) -> None:
    (style,) = links(user.get("/").text, "/static/style.css?v=")
    response = user.get(style)
    assert response.headers["content-type"].startswith("text/css")
    assert "immutable" in response.headers["cache-control"]
    other = user.get("/static/style.css?v=old")
    assert other.headers["cache-control"] == "no-cache"
    again = user.get("/static/style.css", headers={"if-none-match": other.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert user.get("/static/..%2fpages.py").status_code == 404
    assert user.get("/static/nothing.js?v=None").status_code == 404


def test_the_footer_names_time_zone_and_version(user: TestClient) -> None:
    html = user.get("/").text
    for expected in ("Times and days: UTC.", "v1.2.3", 'href="/docs"'):
        assert expected in html


def test_unknown_pages_and_ids_offer_a_search(visitor: TestClient, user: TestClient) -> None:
    response = user.get("/syncs/unknown")
    assert response.status_code == 404
    assert "Sync not found" in text(response.text)
    assert "Very new syncs may not have arrived yet." in text(response.text)
    assert 'name="q"' in response.text
    assert "Page not found" in text(visitor.get("/nothing", headers=BROWSER).text)
    for path, headers in (("/nothing", {}), ("/api/v1/nothing", BROWSER), ("/livez/x", BROWSER)):
        response = visitor.get(path, headers=headers)
        assert response.headers["content-type"] == "application/problem+json", path


@pytest.mark.parametrize(
    ("path", "text"),
    [("/?limit=x&sort=color", "Rows per page: use a number from 1 to 200. Sort: use started_at"),
     ("/?limit=x", "Clear filters"), ("/companies?color=red", "Unknown parameter: color"),
     ("/?cursor=nonsense", "Page: start again from the first page."),
     ("/causes?from=2026-01-03&to=2026-01-01", "Check the dates “To” must not be before “From”")],
)  # fmt: skip
def test_wrong_parameters_are_named(user: TestClient, path: str, text: str) -> None:
    assert text in read(user, path, 422)


@pytest.mark.parametrize(
    "model", [SyncParams, SyncPageParams, EventPageParams, CauseParams, CompanyParams]
)
def test_each_parameter_has_words_for_wrong_values(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert "Unknown parameter" not in describe_error(field.alias or name, "is wrong")


def test_an_unavailable_database_is_reported_without_its_message(
    user: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("connection refused at 10.0.0.1")

    monkeypatch.setattr(syncs, "list_syncs", fail)
    response = user.get("/")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    page = text(response.text)
    assert (
        "Temporarily unavailable The database is unavailable. Try again in a few seconds." in page
    )
    assert "No data is lost." in page
    assert "10.0.0.1" not in response.text
