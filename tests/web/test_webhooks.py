"""Codat's door, over ASGI with the real inbox and both databases behind it."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, func, select, text
from starlette.types import Receive, Scope, Send
from svix.webhooks import Webhook

from app.codat.webhooks.signature import Verifier
from app.db.engine import Database
from app.db.event_store import Inbox
from app.db.tables import events, fetches, metadata, syncs
from app.errors import StorageUnavailable
from app.web import webhooks
from app.web.metrics import Counted
from app.web.webhooks import Door
from tests.reports import sync_row

SECRET = "whsec_" + b64encode(b"s" * 32).decode()
SAMPLES = Path(__file__).parents[1] / "samples" / "codat"
DELIVERIES = [
    entry
    for entry in json.loads((SAMPLES / "index.json").read_text())["files"]
    if entry["kind"] == "delivery"
]
LIMIT = 4096


async def rest_of_the_app(scope: Scope, receive: Receive, send: Send) -> None:
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
    told = {"RuleType": "Sync Failed", "CompanyId": "c1", "Data": {"syncId": sync_id}}
    return json.dumps(told).encode()


def knock(
    database: Database, visit: Callable[[httpx.AsyncClient], Any], registry: Any = None
) -> Any:
    async def all_of_it() -> Any:
        inbox = Inbox(database)
        door = Door(
            rest_of_the_app,
            verifier=Verifier([SECRET]),
            inbox=lambda: inbox,
            max_body_bytes=LIMIT,
            clock=lambda: datetime.now(UTC),
            counted=Counted(1, registry or CollectorRegistry()),
        )
        transport = httpx.ASGITransport(door)
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
            found = await visit(client)
        await inbox.close()
        return found

    return asyncio.run(all_of_it())


def post(database: Database, body: Any, headers: Any, **more: Any) -> httpx.Response:
    async def visit(client: httpx.AsyncClient) -> httpx.Response:
        request = {"method": "POST", "url": "/webhooks/codat", **more}
        return await client.request(**request, content=body, headers=headers)

    answer: httpx.Response = knock(database, visit)
    return answer


def count(database: Database) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(events)).scalar_one()


@pytest.mark.parametrize("url", ["/webhooks/codat", "/webhooks/codat/"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("family", ["webhook", "svix"])
def test_an_authentic_delivery_is_kept_and_answered_204(
    database: Database, url: str, method: str, family: str
) -> None:
    """With and without a slash, by both methods, in both header families."""
    body = failed()
    answer = post(database, body, signed(body, family=family), url=url, method=method)
    assert (answer.status_code, answer.content) == (204, b"")
    assert sync_row(database)["state"] == "failed"


@pytest.mark.parametrize("entry", DELIVERIES, ids=lambda entry: entry["file"])
def test_every_documented_delivery_ends_up_as_documented(
    database: Database, entry: dict[str, Any]
) -> None:
    """From the bytes to the rows."""
    body = (SAMPLES / entry["file"]).read_bytes()
    assert post(database, body, signed(body)).status_code == 204
    with database.reading() as connection:
        kept = connection.execute(select(events)).mappings().one()
        found = connection.execute(select(syncs)).mappings().all()
        owed = connection.execute(select(func.count()).select_from(fetches)).scalar_one()
    assert kept["body"] == body
    assert (kept["event"], kept["event_id"]) == (entry["event"], entry["event_id"])
    if not entry["event"].startswith("sync."):
        assert (found, owed) == ([], 0)
        return
    state = entry["event"].removeprefix("sync.")
    assert [(s["company_id"], s["sync_id"], s["state"]) for s in found] == [
        (entry["company"], entry["sync"], state)
    ]
    assert owed == (state != "started")


def test_a_duplicate_is_acknowledged_and_counts_once(database: Database) -> None:
    """Codat would repeat it for 28 hours otherwise."""
    body = failed()
    headers = signed(body)
    assert [post(database, body, headers).status_code for _ in range(3)] == [204] * 3
    assert count(database) == 1


@pytest.mark.parametrize("body", [b"[]", b"nonsense", b"", b"null", b"[" * 2000])
def test_an_authentic_body_that_cannot_be_read_is_kept_too(database: Database, body: bytes) -> None:
    """Acknowledged, kept, shown as unreadable."""
    assert post(database, body, signed(body)).status_code == 204
    with database.reading() as connection:
        assert connection.execute(select(events.c.reading)).scalars().all() == ["unreadable"]


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
    yield (
        "mixed",
        {
            "svix-id": good["webhook-id"],
            "webhook-timestamp": good["webhook-timestamp"],
            "webhook-signature": good["webhook-signature"],
        },
    )


@pytest.mark.parametrize("forgery", [f for _, f in forgeries()], ids=[n for n, _ in forgeries()])
def test_a_forgery_gets_401_with_the_same_body_and_leaves_nothing(
    database: Database, forgery: dict[str, str]
) -> None:
    """A forger learns nothing from the answer."""
    answer = post(database, failed(), forgery)
    assert answer.status_code == 401
    assert answer.json() == {"type": "about:blank", "title": "Unauthorized", "status": 401}
    with database.reading() as connection:
        for table in metadata.sorted_tables:
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 0


def test_a_body_past_the_limit_is_413_however_it_comes(database: Database) -> None:
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
    """With the ones that are allowed."""
    answer = post(database, b"", {}, method=method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, PUT")


def test_other_addresses_are_passed_on(database: Database) -> None:
    """The door answers its own address only."""
    assert post(database, b"", {}, url="/webhooks/codat/x").status_code == 418


class Away:
    """A database that is not there."""

    is_sqlite = True

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        raise StorageUnavailable("away")
        yield


def test_a_database_that_is_away_is_503_and_codats_retry_brings_the_event_back(
    database: Database,
) -> None:
    """Never a 2xx for what was not committed."""
    body = failed()
    headers = signed(body)
    answer = post(Away(), body, headers)  # type: ignore[arg-type]
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert post(database, body, headers).status_code == 204
    assert count(database) == 1


def test_a_missing_table_is_503_and_never_500(database: Database) -> None:
    """Somebody runs the service on the wrong database."""
    with database.writing() as connection:
        connection.execute(text("DROP TABLE notes"))
        connection.execute(text("DROP TABLE events"))
    body = failed()
    assert post(database, body, signed(body)).status_code == 503


class HangingInbox:
    """Keeps nothing, and lets everybody wait."""

    async def keep(self, delivery: Any) -> bool:
        await asyncio.sleep(60)
        return True

    async def close(self) -> None:
        pass


def asgi(
    messages: list[dict[str, Any]],
    database: Database,
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    inbox: Any = None,
    cancel_after_s: float | None = None,
    raw_path: bytes = b"/webhooks/codat",
) -> list[Any]:
    """Speak ASGI to the door by hand, for what no client would send."""

    async def all_of_it() -> list[Any]:
        kept = inbox or Inbox(database)
        door = Door(
            rest_of_the_app,
            verifier=Verifier([SECRET]),
            inbox=lambda: kept,
            max_body_bytes=LIMIT,
            clock=lambda: datetime.now(UTC),
            counted=Counted(1, CollectorRegistry()),
        )
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/webhooks/codat",
            "raw_path": raw_path,
            "headers": headers or [(b"content-length", b"-1")],
        }
        sent: list[Any] = []
        coming = iter(messages)

        async def receive() -> Any:
            try:
                return next(coming)
            except StopIteration:
                await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        answering = asyncio.create_task(door(scope, receive, send))
        if cancel_after_s:
            await asyncio.sleep(cancel_after_s)
            answering.cancel()
        await answering
        await kept.close()
        return sent

    return asyncio.run(all_of_it())


def test_a_sender_that_hangs_up_is_not_answered(database: Database) -> None:
    """There is nobody to answer, and nothing to keep."""
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert asgi([part, {"type": "http.disconnect"}], database) == []
    assert count(database) == 0


def test_a_body_that_never_ends_is_408(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow sender does not hold a place for ever."""
    monkeypatch.setattr(webhooks, "BODY_WITHIN_S", 0.05)
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert asgi([part], database)[0]["status"] == 408


def test_a_length_of_thirty_digits_is_413_at_once(database: Database) -> None:
    """Nobody waits for a body that is announced to be larger than the world."""
    assert asgi([], database, headers=[(b"content-length", b"9" * 30)])[0]["status"] == 413


def test_a_delivery_that_the_server_gives_up_is_503(database: Database) -> None:
    """When the service stops while the database hangs, Codat is asked to come again."""
    body = failed()
    headers = [(name.encode(), value.encode()) for name, value in signed(body).items()]
    message = {"type": "http.request", "body": body, "more_body": False}
    sent = asgi([message], database, headers=headers, inbox=HangingInbox(), cancel_after_s=0.05)
    assert sent[0]["status"] == 503


def test_half_a_delivery_when_the_service_stops_is_503(database: Database) -> None:
    """Its sender was slow, and nothing is wrong with it."""
    part = {"type": "http.request", "body": b"{", "more_body": True}
    sent = asgi([part], database, cancel_after_s=0.05)
    assert sent[0]["status"] == 503
    assert count(database) == 0


def test_an_encoded_spelling_of_the_address_is_another_address(database: Database) -> None:
    """One address, one spelling: what a proxy guards is what we answer."""
    body = failed()
    headers = [(name.encode(), value.encode()) for name, value in signed(body).items()]
    message = {"type": "http.request", "body": body, "more_body": False}
    sent = asgi([message], database, headers=headers, raw_path=b"/webhooks/%63odat")
    assert sent[0]["status"] == 418
    assert count(database) == 0


def test_the_fate_of_every_delivery_is_counted(database: Database) -> None:
    """A forged delivery leaves a counter and nothing else."""
    registry = CollectorRegistry()
    body = failed()

    async def visit(client: httpx.AsyncClient) -> None:
        for headers in (signed(body), signed(body), {}):
            await client.post("/webhooks/codat", content=body, headers=headers)

    knock(database, visit, registry)
    found = {
        fate: registry.get_sample_value("webhook_deliveries_total", {"fate": fate})
        for fate in ("new", "duplicate", "refused_missing")
    }
    assert found == {"new": 1, "duplicate": 1, "refused_missing": 1}
    assert registry.get_sample_value("webhook_secret_used_total", {"index": "0"}) == 2
