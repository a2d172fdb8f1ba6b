"""Serving under ROOT_PATH: every address leads back under it, whatever the proxy does with it."""

import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from app.bootstrap import create_app
from app.db.engine import open_database
from app.errors import SettingsError
from app.settings import load_settings
from tests.processes import SECRET, signed
from tests.web.pages.html import session_cookies
from tests.web.store import KEY, Store

ROOT = "/codat-sync"
BODY = b'{"eventType": "SyncFailed", "companyId": "c1", "payload": {"syncId": "a/b"}}'
AUTHORIZED = {"authorization": f"Bearer {KEY}"}


def removing(app: ASGIApp) -> ASGIApp:
    """A proxy that removes the prefix."""

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith(ROOT)
            path = scope["path"].removeprefix(ROOT) or "/"
            raw = scope["raw_path"].removeprefix(ROOT.encode()) or b"/"
            scope = {**scope, "path": path, "raw_path": raw}
        await app(scope, receive, send)

    return proxy


@pytest.fixture(params=["the proxy removes the path", "the proxy passes the path on"])
def client(
    request: pytest.FixtureRequest, sqlite_template: Path, tmp_path: Path
) -> Iterator[TestClient]:
    url = f"sqlite:///{shutil.copy(sqlite_template, tmp_path)}"
    store = Store(open_database(url))
    store.company("c1", "Toft stores")
    store.failed("a/b")
    store.event("m/1")
    store.database.close()
    app = create_app(
        load_settings(
            database_url=url, codat_webhook_secrets=SECRET, codat_api_key="codat-key",
            api_keys=KEY, worker_in_web=False, root_path=ROOT,
            codat_base_url="http://127.0.0.1:1",
        )
    )  # fmt: skip
    with TestClient(removing(app) if "removes" in request.param else app) as made:
        yield made


def sign_in(client: TestClient) -> Any:
    answer = client.get(f"{ROOT}/syncs/a%2Fb?company_id=c1", follow_redirects=False)
    assert answer.headers["location"].startswith(f"{ROOT}/sign-in?next={ROOT}/syncs/")
    form = client.get(answer.headers["location"]).text
    target = re.search(r'name="next" value="([^"]*)"', form)
    action = re.search(r'method="post" action="([^"]*)"', form)
    assert target
    assert action
    data = {"key": KEY, "next": unescape(target[1])}
    return client.post(action[1], data=data, follow_redirects=False)


def test_people_sign_in_act_and_sign_out(client: TestClient) -> None:
    answer = sign_in(client)
    assert answer.headers["location"] == f"{ROOT}/syncs/a%2Fb?company_id=c1"
    assert "; Path=/codat-sync;" in answer.headers["set-cookie"]
    page = client.get(answer.headers["location"])
    action = re.search(r'action="([^"]*/refresh)"', page.text)
    token = re.search(r'name="csrf" value="(\w+)"', page.text)
    assert action
    assert token
    refreshed = client.post(action[1], data={"csrf": token[1]})
    assert refreshed.url.path == f"{ROOT}/syncs/a/b"
    assert "Refreshing from Codat" in refreshed.text
    left = client.post(f"{ROOT}/sign-out", data={"csrf": token[1]})
    assert left.url.path == f"{ROOT}/sign-in"
    assert session_cookies(client) == []


def test_every_link_of_every_page_works(client: TestClient) -> None:
    sign_in(client)
    seen: set[str] = set()
    waiting = [f"{ROOT}/", ROOT, f"{ROOT}/no/such/page"]
    while waiting:
        address = waiting.pop()
        answer = client.get(address, headers={"accept": "text/html"})
        is_form_only = answer.headers.get("allow") == "POST"
        assert answer.status_code in (200, 404, 502) or is_form_only, address
        html = answer.headers["content-type"].startswith("text/html")
        found = re.findall(r'(?:href|src|action)="([^"#][^"]*)"', answer.text) if html else []
        links = [unescape(link) for link in found]
        if "/docs" not in address:
            assert [link for link in links if not f"{link}/".startswith(f"{ROOT}/")] == []
        for link in links:
            path = urlsplit(link).path
            if path not in seen and len(seen) < 80 and "/sign-out" not in path:
                seen.add(path)
                waiting.append(link if link.startswith("/") else f"{ROOT}/{link}")
    names = {"", "syncs.csv", "companies", "causes", "events", "docs", "static/style.css"}
    assert {f"{ROOT}/{name}" for name in names} <= seen


def test_programs_find_the_api_and_its_description(client: TestClient) -> None:
    described = client.get(f"{ROOT}/openapi.json").json()
    assert described["servers"] == [{"url": ROOT}]
    docs = client.get(f"{ROOT}/docs").text
    for name in re.findall(r"(?:href|src)=\"([^\"]*)\"|url: '([^']*)'", docs):
        assert client.get(f"{ROOT}/{''.join(name)}").status_code == 200
    problem = client.get(f"{ROOT}/api/v1/syncs/a%2Fc", headers=AUTHORIZED)
    assert problem.json()["instance"] == f"{ROOT}/api/v1/syncs/a/c"
    missing = client.get(f"{ROOT}/codat/companies/c2", headers=AUTHORIZED)
    assert missing.json()["statusCode"] == 404
    listed = client.get(f"{ROOT}/codat//companies?page=1", headers=AUTHORIZED)
    assert json.loads(listed.text)["results"]
    assert client.head(f"{ROOT}/readyz").status_code == 503


@pytest.mark.parametrize("path", ["/webhooks/codat", "/webhooks/codat/"])
def test_deliveries_are_stored(client: TestClient, path: str) -> None:
    answer = client.post(ROOT + path, content=BODY, headers=signed(BODY, "m2"))
    assert answer.status_code == 204
    assert client.get(f"{ROOT}/api/v1/events/m2", headers=AUTHORIZED).status_code == 200
    double = client.post(f"{ROOT}/{path}", content=BODY, headers=signed(BODY, "m3"))
    assert double.status_code == 404


@pytest.mark.parametrize("root_path", ["/syncs", "/codat", "/api", "/api/v1", "/webhooks", "/docs"])
def test_a_root_path_that_is_also_a_path_of_ours_is_refused(root_path: str) -> None:
    """Whether a proxy has removed it could not be decided."""
    settings = load_settings(
        database_url="sqlite:///none.db", codat_webhook_secrets=SECRET, codat_api_key="codat-key",
        api_keys=KEY, worker_in_web=False, root_path=root_path,
    )  # fmt: skip
    with pytest.raises(SettingsError, match=f"^ROOT_PATH must not be {root_path}, "):
        create_app(settings)
