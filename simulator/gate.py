"""The way in to the API: authentication, limits, faults, counting, and headers on every reply."""

import asyncio
import base64
import hmac
import json
from collections.abc import Mapping
from urllib.parse import quote, unquote

import httpx
from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from simulator import api, refusals
from simulator.answers import Call, Reply
from simulator.box import Box
from simulator.faults import ANSWERING, Fault
from simulator.quota import retry_after
from simulator.refusals import RefusalError


def key_accepted(header: str, key: str) -> bool:
    """Whether an Authorization header is `Basic` and the base64 of the key itself.

    docs.codat.io/using-the-api/authentication: the whole key is encoded, there is no user name.
    """
    encoded = base64.b64encode(key.encode()).decode()
    scheme, _, told = header.partition(" ")
    return scheme.lower() == "basic" and hmac.compare_digest(
        told.strip().encode(), encoded.encode()
    )


class Gate:
    """An ASGI application for everything that is Codat's."""

    def __init__(self, box: Box) -> None:
        """The door to this box."""
        self._box = box

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request the way Codat would, or the way a fault wants it."""
        box, method = self._box, scope["method"]
        body = await _read(receive)
        raw_path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("ascii")
        endpoint, params = api.resolve(method, raw_path)
        kind = endpoint.kind if endpoint else "unknown"
        headers = Headers(scope=scope)
        with box.counters.call(kind, params.get("company", "")):
            fault: Fault | None = None
            try:
                self._admit(headers)
                fault = box.faults.take(method, unquote(raw_path), kind)
                query = QueryParams(scope["query_string"])
                call = Call(params, query, headers, body, fault)
                await _hold(fault, receive, send)
                reply = self._answer(endpoint, call)
            except RefusalError as refusal:
                reply = self._refused(refusal)
            await self._send(reply, fault, send)

    def _admit(self, headers: Mapping[str, str]) -> None:
        """Pass a call with the right key and within all limits, else raise the refusal."""
        box = self._box
        if not key_accepted(headers.get("authorization", ""), box.settings.key):
            raise RefusalError(401)
        if box.counters.last_minute() > box.settings.minute_limit:
            raise RefusalError(429, headers={"Retry-After": "60"})
        if box.counters.in_flight.total() > box.concurrency():
            raise RefusalError(429, headers={"Retry-After": "1"})
        if not box.quota.spend():
            box.counters.while_closed += 1
            raise RefusalError(429, headers={"Retry-After": box.quota.retry_after()})
        if box.quota.remaining == 0:
            box.quota_reached()

    def _answer(self, endpoint: api.Endpoint | None, call: Call) -> Reply:
        fault = call.fault
        if fault is not None:
            self._box.counters.faults[fault.kind] += 1
            if fault.kind == "status":
                raise self._scripted(fault)
        if endpoint is None:
            raise RefusalError(404)
        return endpoint.handler(self._box, call)

    def _scripted(self, fault: Fault) -> RefusalError:
        refusal = api.fault_refusal(fault)
        if fault.retry_after is not None:
            refusal.headers["Retry-After"] = retry_after(fault.retry_after, self._box.clock)
        return refusal

    def _refused(self, refusal: RefusalError) -> Reply:
        body = refusals.error_body(refusal, self._box.correlation_id())
        return Reply(refusal.status, body, refusal.headers)

    async def _send(self, reply: Reply, fault: Fault | None, send: Send) -> None:
        kind = fault.kind if fault and fault.kind in ANSWERING else ""
        if kind == "drop":
            await _drop(send)
            return
        body = json.dumps(reply.body, ensure_ascii=False).encode()
        if kind == "truncated_body":
            body = body[: max(1, len(body) // 2)]
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Content-Length": str(len(body)),
            **self._box.quota.headers(),
            **reply.headers,
        }
        self._box.counters.statuses[reply.status] += 1
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        event = await receive()
        body += bytes(event.get("body", b""))
        if not event.get("more_body"):
            return body


async def _hold(fault: Fault | None, receive: Receive, send: Send) -> None:
    """Keep a caller waiting as a `timeout` fault asks, but not longer than it listens."""
    if fault is None or fault.kind != "timeout":
        return
    try:
        await asyncio.wait_for(receive(), fault.hold_seconds)
    except TimeoutError:
        return
    except asyncio.CancelledError:
        if not await _cut(send):
            raise


async def _drop(send: Send) -> None:
    """Close the connection without a byte; without a connection (in process) say so by raising."""
    if not await _cut(send):
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.")


async def _cut(send: Send) -> bool:
    """Break the connection under `send`; False when there is none that could be reached."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        return False
    transport.abort()
    await asyncio.sleep(0.01)
    return True
