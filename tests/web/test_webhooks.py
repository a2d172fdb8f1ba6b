"""The webhook endpoint, over ASGI with the real event store and both databases behind it."""

import asyncio
import gzip
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select, text
from starlette.types import Receive, Scope, Send
from svix.webhooks import Webhook

from app.codat.webhooks.signature import Verifier
from app.db.engine import Database, open_database
from app.db.event_store import EventStore
from app.db.tables import jobs, metadata, syncs
from app.web import webhooks
from app.web.http_limits import BODY_COMPLETE, BodyBudget
from app.web.metrics import Metrics
from app.web.webhooks import WebhookEndpoint
from tests.factories import count_rows, event_row, project, sync_row

SECRET = "whsec_" + b64encode(b"s" * 32).decode()
SAMPLES = Path(__file__).parents[1] / "samples" / "codat"
DELIVERIES = [
    entry
    for entry in json.loads((SAMPLES / "index.json").read_text())["files"]
    if entry["kind"] == "delivery"
]
LIMIT = 4096


class Results(Metrics):
    """Records the results that the endpoint counts, in order."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry(), secrets=1, version="1")
        self.results: list[str] = []

    def delivery(self, result: str) -> None:
        self.results.append(result)

    def secret_matched(self, index: int, at: datetime) -> None:
        self.results.append(f"secret {index}")


async def other_routes(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body"})


def signed(body: bytes, message_id: str = "msg_1", family: str = "webhook") -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        f"{family}-id": message_id,
        f"{family}-timestamp": str(int(now.timestamp())),
        f"{family}-signature": Webhook(SECRET).sign(message_id, now, body.decode()),
    }


def failed(sync_id: str = "s1") -> bytes:
    body = {"RuleType": "Sync Failed", "CompanyId": "c1", "Data": {"syncId": sync_id}}
    return json.dumps(body).encode()


def endpoint(store: Any, results: Results, budget: BodyBudget | None = None) -> WebhookEndpoint:
    return WebhookEndpoint(
        other_routes,
        verifier=Verifier([SECRET]),
        store=lambda: store,
        max_body_bytes=LIMIT,
        clock=lambda: datetime.now(UTC),
        metrics=results,
        body_budget=budget or BodyBudget(1_000_000),
    )


def serve(
    database: Database, requests: Callable[[httpx.AsyncClient], Any], results: Results | None = None
) -> Any:
    async def body() -> Any:
        store = EventStore(database)
        transport = httpx.ASGITransport(endpoint(store, results or Results()))
        async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
            found = await requests(client)
        await store.close()
        return found

    return asyncio.run(body())


def post(database: Database, body: Any, headers: Any, **more: Any) -> httpx.Response:
    async def requests(client: httpx.AsyncClient) -> httpx.Response:
        request = {"method": "POST", "url": "/webhooks/codat", **more}
        return await client.request(**request, content=body, headers=headers)

    answer: httpx.Response = serve(database, requests)
    return answer


@pytest.mark.parametrize("url", ["/webhooks/codat", "/webhooks/codat/"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("family", ["webhook", "svix"])
def test_an_authentic_delivery_is_stored_and_answered_204(
    database: Database, url: str, method: str, family: str
) -> None:
    body = failed()
    answer = post(database, body, signed(body, family=family), url=url, method=method)
    assert (answer.status_code, answer.content) == (204, b"")
    assert event_row(database, "msg_1")["body"] == body
    project(database)
    assert sync_row(database)["state"] == "failed"


@pytest.mark.parametrize("entry", DELIVERIES, ids=lambda entry: entry["file"])
def test_every_documented_delivery_ends_up_as_documented(
    database: Database, entry: dict[str, Any]
) -> None:
    """From the bytes to the rows."""
    body = (SAMPLES / entry["file"]).read_bytes()
    assert post(database, body, signed(body)).status_code == 204
    project(database)
    event = event_row(database, "msg_1")
    assert (event["event_type"], event["body_id"]) == (entry["event"], entry["event_id"])
    with database.reading() as connection:
        found = connection.execute(select(syncs)).mappings().all()
        enqueued = connection.execute(select(func.count()).select_from(jobs)).scalar_one()
    if not entry["event"].startswith("sync."):
        assert (found, enqueued) == ([], 0)
        return
    state = entry["event"].removeprefix("sync.")
    assert [(row["company_id"], row["sync_id"], row["state"]) for row in found] == [
        (entry["company"], entry["sync"], state)
    ]
    assert enqueued == (state != "started")


def test_a_duplicate_is_acknowledged_and_counts_once(database: Database) -> None:
    """Codat would repeat it for 28 hours otherwise."""
    body = failed()
    headers = signed(body)
    assert [post(database, body, headers).status_code for _ in range(3)] == [204] * 3
    assert event_row(database, "msg_1")["deliveries"] == 3


@pytest.mark.parametrize("body", [b"[]", b"nonsense", b"", b"null", b"[" * 2000])
def test_an_authentic_body_that_cannot_be_parsed_is_acknowledged(
    database: Database, body: bytes
) -> None:
    """Stored, and shown as unreadable."""
    assert post(database, body, signed(body)).status_code == 204
    project(database)
    assert event_row(database, "msg_1")["parse_status"] == "unreadable"


def test_a_body_that_is_no_utf_8_is_not_authentic(database: Database) -> None:
    """The scheme signs text: its library verifies no other bytes, and Codat can sign none."""
    body, key = b'{"RuleType": "\xff"}', b64decode(SECRET.removeprefix("whsec_"))
    headers = signed(failed())
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    signature = b64encode(hmac.digest(key, content, "sha256")).decode()
    answer = post(database, body, headers | {"webhook-signature": f"v1,{signature}"})
    assert answer.status_code == 401
    assert count_rows(database, "webhook_events") == 0


def forgeries() -> Iterator[tuple[str, dict[str, str]]]:
    body = failed()
    good = signed(body)
    yield "nothing", {}
    yield "another body's", signed(failed("s2"))
    yield "no signature", {k: v for k, v in good.items() if k != "webhook-signature"}
    yield "old", good | {"webhook-timestamp": "1614265330"}
    yield "not base64", good | {"webhook-signature": "v1,%%%"}
    yield "no version", good | {"webhook-signature": "junk"}
    yield "other id", good | {"webhook-id": "msg_2"}
    yield "mixed", {"svix-id": good["webhook-id"]} | {k: good[k] for k in [*good][1:]}


@pytest.mark.parametrize("forgery", [f for _, f in forgeries()], ids=[n for n, _ in forgeries()])
def test_a_forgery_gets_401_with_the_same_body_and_leaves_nothing(
    database: Database, forgery: dict[str, str]
) -> None:
    """A forger learns nothing from the answer."""
    answer = post(database, failed(), forgery)
    assert answer.status_code == 401
    assert answer.json() == {"type": "about:blank", "title": "Unauthorized", "status": 401}
    assert {table: count_rows(database, table) for table in metadata.tables} == dict.fromkeys(
        metadata.tables, 0
    )


def test_a_body_past_the_limit_is_413_however_it_arrives(database: Database) -> None:
    """Announced or streamed."""
    large = b"x" * (LIMIT + 1)
    assert post(database, large, signed(large)).status_code == 413

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 1000

    assert post(database, stream(), {}).status_code == 413
    exact = b"x" * LIMIT
    assert post(database, exact, signed(exact)).status_code == 204


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_other_methods_are_405(database: Database, method: str) -> None:
    answer = post(database, b"", {}, method=method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, PUT")


@pytest.mark.parametrize("coding", ["gzip", "br, identity", "ZSTD", "deflate", "x"])
def test_an_encoded_body_is_415_and_not_a_wrong_signature(database: Database, coding: str) -> None:
    body = failed()
    answer = post(database, gzip.compress(body), signed(body) | {"content-encoding": coding})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    plain = signed(body) | {"content-encoding": "Identity"}
    assert post(database, body, plain).status_code == 204


def test_other_addresses_are_passed_on(database: Database) -> None:
    assert post(database, b"", {}, url="/webhooks/codat/x").status_code == 418


def test_a_database_that_is_down_is_503_and_codats_retry_brings_the_event_back(
    database: Database,
) -> None:
    """Never a 2xx for what was not committed."""
    body = failed()
    headers = signed(body)
    down = open_database("postgresql://nobody@127.0.0.1:1/nothing")
    answer = post(down, body, headers)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert post(database, body, headers).status_code == 204
    assert count_rows(database, "webhook_events") == 1


@pytest.mark.own_database
def test_a_missing_table_is_503_and_never_500(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("DROP TABLE webhook_events"))
    body = failed()
    assert post(database, body, signed(body)).status_code == 503


class HangingStore:
    """Stores nothing, and lets every request wait."""

    async def store(self, event: Any, request_id: str) -> bool:
        await asyncio.sleep(60)
        return True

    async def close(self) -> None:
        pass


PART = {"type": "http.request", "body": b"{", "more_body": True}
GONE = {"type": "http.disconnect"}
WHOLE = {"type": "http.request", "body": failed(), "more_body": False}


def asgi(
    messages: list[dict[str, Any]],
    database: Database,
    *,
    store: Any = None,
    cancel_after_s: float | None = None,
    budget: BodyBudget | None = None,
    **scope: Any,
) -> list[Any]:
    """Speak ASGI by hand, for what no client would send. WHOLE is signed."""

    async def body() -> list[Any]:
        used = store or EventStore(database)
        headers = signed(failed()) if WHOLE in messages else {"content-length": "-1"}
        request = {
            "type": "http",
            "method": "POST",
            "path": "/webhooks/codat",
            "raw_path": b"/webhooks/codat",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            **scope,
        }
        sent: list[Any] = []
        incoming = iter(messages)

        async def receive() -> Any:
            try:
                return next(incoming)
            except StopIteration:
                await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        answering = asyncio.ensure_future(endpoint(used, Results(), budget)(request, receive, send))
        if cancel_after_s:
            await asyncio.sleep(cancel_after_s)
            answering.cancel()
        await answering
        await used.close()
        return sent

    return asyncio.run(body())


@pytest.mark.parametrize(
    ("messages", "changes", "status"),
    [
        pytest.param([PART, GONE], {}, None, id="the sender disconnects"),
        pytest.param([PART], {}, 408, id="the body never ends"),
        pytest.param([], {"headers": [(b"content-length", b"9" * 30)]}, 413, id="a huge length"),
        pytest.param([PART], {"cancel_after_s": 0.02}, 503, id="the service stops meanwhile"),
        pytest.param(
            [WHOLE], {"store": HangingStore(), "cancel_after_s": 0.02}, 503, id="the store hangs"
        ),
        # One address, one spelling: what a proxy guards is what is answered.
        pytest.param([WHOLE], {"raw_path": b"/webhooks/%63odat"}, 418, id="another spelling"),
    ],
)
def test_what_no_client_would_send_is_answered_and_not_stored(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    messages: list[dict[str, Any]],
    changes: dict[str, Any],
    status: int | None,
) -> None:
    """A 503 makes Codat send the event again; a sender that has gone gets no answer."""
    monkeypatch.setattr(webhooks, "BODY_WITHIN_S", 0.05)
    sent = asgi(messages, database, **changes)
    assert [message["status"] for message in sent[:1]] == ([status] if status else [])
    assert count_rows(database, "webhook_events") == 0


def test_unverified_bodies_are_bounded_in_total(database: Database) -> None:
    """Beyond the budget 503; whatever becomes of a request, its part is released."""
    budget = BodyBudget(10)
    long = {"type": "http.request", "body": b"x" * 11, "more_body": True}
    sent = asgi([PART, long], database, budget=budget)
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"30") in sent[0]["headers"]
    assert asgi([PART, GONE], database, budget=budget) == []
    asgi([PART], database, budget=budget, cancel_after_s=0.02)
    end = {"type": "http.request", "body": b"}", "more_body": False}
    assert asgi([PART, end], database, budget=budget)[0]["status"] == 401
    assert budget.used == 0


def test_a_body_that_came_with_its_head_needs_no_part_of_the_budget(database: Database) -> None:
    """Slow unsigned bodies cannot crowd out Codat's deliveries."""
    sent = asgi([WHOLE], database, budget=BodyBudget(0), **{BODY_COMPLETE: True})
    assert sent[0]["status"] == 204


def test_the_result_of_every_delivery_is_counted(database: Database) -> None:
    results = Results()
    body = failed()

    async def requests(client: httpx.AsyncClient) -> None:
        for headers in (signed(body), signed(body), {}):
            await client.post("/webhooks/codat", content=body, headers=headers)
        encoded = {"content-encoding": "gzip"}
        await client.post("/webhooks/codat", content=body, headers=encoded)
        await client.post("/webhooks/codat", content=b"x" * (LIMIT + 1))

    serve(database, requests, results)
    expected = ["secret 0", "stored", "secret 0", "duplicate", "invalid_signature"]
    expected += ["content_encoding", "too_large"]
    assert results.results == expected
