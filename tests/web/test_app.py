"""The application as a whole: its order, request ids, redirects, bodies."""

import asyncio
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from app.bootstrap import create_app, open_worker, utc_now
from app.db.engine import Database
from app.settings import load_settings
from app.worker.runner import FETCHES
from tests.processes import SECRET, signed

KEY = "a-key-for-the-api"
BODY = b'{"eventType": "SyncFailed", "companyId": "c1", "payload": {"syncId": "s1"}}'


@pytest.fixture(scope="module")
def client(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of the application that `serve` runs, without a worker."""
    file = shutil.copy(sqlite_template, tmp_path_factory.mktemp("app"))
    app = create_app(
        load_settings(
            database_url=f"sqlite:///{file}",
            codat_webhook_secrets=SECRET,
            codat_api_key="codat-key",
            api_keys=KEY,
            worker_in_web=False,
            max_unverified_body_bytes=1_048_576,
        )
    )
    with TestClient(app, headers={"authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.mark.parametrize("path", ["/webhooks/codat", "/webhooks/codat/"])
def test_a_delivery_is_stored_and_shown(client: TestClient, path: str) -> None:
    answer = client.post(path, content=BODY, headers=signed(BODY, "m1"))
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get("/api/v1/events/m1").json()["message_id"] == "m1"


@pytest.mark.parametrize(
    "path", ["/webhooks/codat//", "/api/v1/syncs/", "/api/v1", "/sign-in/", "/livez/"]
)
def test_nothing_is_redirected_to_another_spelling(client: TestClient, path: str) -> None:
    assert client.get(path, follow_redirects=False).status_code == 404


def routes(client: TestClient, method: str) -> list[str]:
    """The paths of all routes with this method, as those of things that do not exist."""
    app: Any = client.app
    paths = [
        route.path
        for route in iter_route_contexts(app.routes)
        if method in (getattr(route, "methods", None) or ())
    ]
    assert len(paths) > 3
    return [re.sub(r"{.*?}", "x", str(path)) for path in paths]


def test_head_is_answered_like_get_without_the_body(client: TestClient) -> None:
    found = set()
    for path in [
        *routes(client, "GET"),
        "/docs-files/swagger-ui.css",
        "/no/such",
        "/api/v1/syncs?x",
    ]:
        accept = {"accept": "text/csv"} if "push" in path else {}
        get, head = (
            client.request(method, path, headers=accept, follow_redirects=False)
            for method in ("GET", "HEAD")
        )
        found.add(get.status_code)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        own = {"x-request-id", "content-length"} if path == "/metrics" else {"x-request-id"}
        names = (get.headers.keys() | head.headers.keys()) - own
        assert {n: head.headers.get(n) for n in names} == {n: get.headers.get(n) for n in names}
    assert {200, 303, 404, 422} <= found
    assert 'method="HEAD",route="/readyz"' in client.get("/metrics").text


def test_head_of_an_event_stream_ends(client: TestClient) -> None:
    accept = {"accept": "text/event-stream"}
    for _ in range(60):  # it gives its place back
        head = client.head("/api/v1/changes", headers=accept)
        assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")
    assert head.headers["x-accel-buffering"] == "no"
    assert "no-transform" in head.headers["cache-control"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/livez", "GET, HEAD"),
        ("/sign-in", "GET, POST, HEAD"),
        ("/sign-out", "POST"),
        ("/api/v1/syncs/x/refresh", "POST"),
        ("/api/v1/companies/x", "GET, HEAD"),
        ("/syncs/x/retry", "GET, POST, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/docs-files/swagger-ui.css", "GET, HEAD"),
        ("/webhooks/codat", "POST, PUT"),
    ],
)
def test_other_methods_get_405_with_every_method_that_is_allowed(
    client: TestClient, path: str, allowed: str
) -> None:
    for method in {"OPTIONS", "DELETE", "PATCH", "TRACE", "PROPFIND"}:
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "path",
    [
        "//webhooks/codat", "/webhooks/codat//", "/prefix/webhooks/codat", "/Webhooks/Codat",
        "/webhooks/codat%20", "/webhook", "/webhooks%2Fcodat", "/sign-out/x", "/livez",
    ],
)  # fmt: skip
def test_a_signed_delivery_to_another_path_is_counted_and_logged_once(
    client: TestClient, path: str
) -> None:
    def count() -> float:
        pattern = r'^webhook_deliveries_total{result="wrong_path"} (\S+)'
        found = re.search(pattern, client.get("/metrics").text, re.MULTILINE)
        assert found
        return float(found[1])

    before = count()
    with capture_logs() as logged:
        for family in ("webhook", "svix"):
            headers = signed(BODY, "m9", family=family)
            answer = client.post(f"http://testserver{path}", content=BODY, headers=headers)
            assert answer.status_code in (404, 405)
        client.post(f"http://testserver{path}", content=BODY)  # signed by nobody
    assert count() == before + 2
    (line,) = [line for line in logged if line["event"] == "a webhook was sent to another path"]
    assert (line["path"], line["expected"]) == (path, "/webhooks/codat")


def test_a_query_does_not_make_another_path(client: TestClient) -> None:
    answer = client.post("/webhooks/codat?source=x", content=BODY, headers=signed(BODY, "m10"))
    assert answer.status_code == 204


@pytest.mark.parametrize(
    ("sent", "is_taken_over"),
    [("req-1.2:3/4", True), ("a" * 128, True), ("a" * 129, False), ("two words", False)],
)
def test_a_request_id_is_taken_over_or_made(
    client: TestClient, sent: str, is_taken_over: bool
) -> None:
    """Also for deliveries, which pass by the middleware."""
    ours = {"x-request-id": sent}
    stored = client.post("/webhooks/codat", content=BODY, headers=signed(BODY, "m2") | ours)
    answers = [client.get("/api/v1/syncs", headers=ours), stored]
    answers += [
        client.request(method, "/webhooks/codat", headers=ours) for method in ("POST", "GET")
    ]
    assert [answer.status_code for answer in answers] == [200, 204, 401, 405]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert ids == {sent} if is_taken_over else sent not in ids and len(ids) == 4


def test_requests_are_counted_by_route(client: TestClient) -> None:
    client.get("/api/v1/syncs/some-id")
    client.get("/api/v1/syncs/another-id")
    client.get("/nowhere-1")
    metrics = client.get("/metrics").text
    assert "some-id" not in metrics
    assert "nowhere-1" not in metrics
    assert 'route="/api/v1/syncs/{sync_id}"' in metrics
    assert 'route="other"' in metrics


def test_large_bodies_of_other_routes_are_refused(client: TestClient) -> None:
    body = b'{"dataset_ids": ["%s"]}' % (b"x" * 1_100_000)
    answer = client.post("/api/v1/companies/c1/syncs", content=body)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.post("/sign-in", content=b"key=" + b"x" * 1_100_000).status_code == 413


THREADS = FETCHES + 4


async def count_side_by_side() -> int:
    """How many threads wait for each other; fails unless as many as fetches and a few more do."""
    barrier = threading.Barrier(THREADS)
    waits = (asyncio.to_thread(barrier.wait, 5) for _ in range(THREADS))
    return len(set(await asyncio.gather(*waits)))


def test_recording_fetches_leaves_threads_for_the_others(client: TestClient) -> None:
    """Python's default is a few more than there are processors: the projector would wait."""
    assert client.portal
    assert client.portal.call(count_side_by_side) == THREADS


def test_a_worker_alone_has_these_threads_too(database: Database) -> None:
    async def run() -> int:
        settings = load_settings(database_url="sqlite:///none.db", codat_api_key="codat-key")
        async with open_worker(settings, database, utc_now):
            return await count_side_by_side()

    assert asyncio.run(run()) == THREADS
