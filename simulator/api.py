"""Codat's REST API: authentication, limits, faults, and one function per endpoint."""

import asyncio
import base64
import hmac
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from simulator.faults import Fault
from simulator.responses import (
    ApiError,
    apply_list_fault,
    company_json,
    page_json,
    status_json,
    transaction_json,
)
from simulator.simulation import Simulation
from simulator.state import Company, Json, Sync, UnknownIdError

EXPENSES = "/companies/{company}/sync/expenses"
EXPENSES_SERVICE = "ExpenseSyncApi"


@dataclass(frozen=True)
class Call:
    """One authenticated API call; the path parameters are decoded."""

    simulation: Simulation
    params: dict[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    fault: Fault | None

    def company(self) -> Company:
        """Return the company of the path. Raises UnknownIdError."""
        return self.simulation.state.company(self.params["company"])

    def sync(self) -> Sync:
        """Return the sync of the path. Raises UnknownIdError."""
        return self.simulation.state.sync(self.params["sync"], self.company().company_id)

    def page(self, rows: list[Json], *segments: str) -> Json:
        """Build the page that the query asks for; `segments` are the path of its links."""
        href = "".join("/" + quote(segment, safe="") for segment in segments)
        return page_json(rows, self.query, href, self.fault)


Handler = Callable[[Call], Any]


@dataclass(frozen=True)
class Endpoint:
    """A path pattern, the kind of call in counters and fault rules, and the handler."""

    method: str
    pattern: re.Pattern[str]
    kind: str
    handler: Handler


ENDPOINTS: list[Endpoint] = []


def endpoint(method: str, path: str, kind: str) -> Callable[[Handler], Handler]:
    """Register a handler; the first that matches wins."""

    def register(handler: Handler) -> Handler:
        ENDPOINTS.append(Endpoint(method, compile_path(path)[0], kind, handler))
        return handler

    return register


@endpoint("GET", "/companies", "companies")
def list_companies(call: Call) -> Any:
    """List companies; `query` and `orderBy` have no effect, as Codat documents."""
    rows = [company_json(company) for company in call.simulation.state.companies.values()]
    return call.page(rows, "companies")


@endpoint("GET", "/companies/{company}/connections", "connections")
def list_connections(call: Call) -> Any:
    """List a company's connections, accounting first."""
    company_id = call.company().company_id
    return call.page(call.company().connections, "companies", company_id, "connections")


@endpoint("GET", f"{EXPENSES}/config", "config")
def get_config(call: Call) -> Any:
    """Return the sync configuration: bank account, supplier and customer ids."""
    return call.company().config


@endpoint("GET", f"{EXPENSES}/syncs/list/status", "sync_list")
def list_statuses(call: Call) -> Any:
    """List a company's statuses as a bare array, newest first, without paging."""
    syncs = call.simulation.state.company_syncs(call.params["company"])
    rows = [status_json(sync) for sync in syncs]
    return apply_list_fault(rows, 1, max(1, len(rows)), call.fault)[0]


@endpoint("GET", f"{EXPENSES}/syncs/{{sync}}/status", "sync_status")
def get_status(call: Call) -> Any:
    """Return the status of one sync."""
    return status_json(call.sync())


@endpoint("GET", f"{EXPENSES}/syncs/{{sync}}/transactions", "transactions")
def list_transactions(call: Call) -> Any:
    """List a sync's transactions; the links have the older paths, as in Codat's samples."""
    sync = call.sync()
    rows = [transaction_json(row) for row in sync.transactions]
    return call.page(rows, "companies", sync.company_id, "syncs", sync.sync_id, "transactions")


@endpoint("GET", f"{EXPENSES}/syncs/{{sync}}/transactions/{{transaction}}", "transaction")
def get_transaction(call: Call) -> Any:
    """Return all rows of one transaction as an array."""
    transaction_id = call.params["transaction"]
    rows = [row for row in call.sync().transactions if row.transaction_id == transaction_id]
    if not rows:
        text = f"No transaction was found with ID {transaction_id}"
        raise ApiError(404, text, EXPENSES_SERVICE)
    return [transaction_json(row) for row in rows]


@endpoint("POST", f"{EXPENSES}/syncs", "initiate")
def initiate_sync(call: Call) -> Any:
    """Start a sync and return its id.

    400 without dataset ids, 422 without connections, 409 while another sync is running. A repeated
    `Idempotency-Key` returns the same id, or 422 with another body
    (docs.codat.io/using-the-api/write-data/idempotency).
    """
    simulation, company = call.simulation, call.company()
    dataset_ids = _parse_dataset_ids(call.body)
    key = call.headers.get("idempotency-key")
    if key in simulation.initiated:
        body, sync_id = simulation.initiated[key]
        if body != call.body:
            raise ApiError(422, "The idempotency key was used with another request body.")
        return {"syncId": sync_id}
    if not company.connected:
        raise ApiError(422, service=EXPENSES_SERVICE)
    if any(sync.running for sync in simulation.state.company_syncs(company.company_id)):
        text = "A sync is already in progress for this company."
        raise ApiError(409, text, EXPENSES_SERVICE)
    sync = simulation.start_sync(company.company_id, size=2 * len(dataset_ids))
    if key:
        simulation.initiated[key] = (call.body, sync.sync_id)
    delay = simulation.settings.finish_initiated_after
    if delay is not None:
        outcome = simulation.rng.choice(("all_written", "all_written", "partly_failed"))
        simulation.sender.spawn(simulation.finish_later(sync.sync_id, outcome, delay))
    return {"syncId": sync.sync_id}


def _parse_dataset_ids(body: bytes) -> list[str]:
    try:
        content = json.loads(body)
    except ValueError:
        raise ApiError(400) from None
    ids = content.get("datasetIds") if isinstance(content, dict) else None
    if isinstance(ids, list) and ids and all(isinstance(dataset_id, str) for dataset_id in ids):
        return ids
    raise ApiError(400, "At least one dataset id is required.", EXPENSES_SERVICE)


@endpoint("GET", "/webhooks", "webhooks")
def list_webhook_consumers(call: Call) -> Any:
    """List all consumers without paging and without their secrets."""
    return {
        "results": [
            {
                "id": subscription.subscription_id,
                "url": subscription.url,
                "eventTypes": list(subscription.event_types),
                "disabled": False,
            }
            for subscription in call.simulation.sender.subscriptions
        ]
    }


def resolve(method: str, raw_path: str) -> tuple[Endpoint | None, dict[str, str]]:
    """Find the endpoint for a percent-encoded path, and its decoded parameters.

    The path is matched before it is decoded, so an id may contain an encoded slash.
    """
    for endpoint in ENDPOINTS:
        match = endpoint.pattern.match(raw_path)
        if match and endpoint.method == method:
            return endpoint, {name: unquote(text) for name, text in match.groupdict().items()}
    return None, {}


class CodatApi:
    """The ASGI application of Codat's API."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        key = base64.b64encode(simulation.settings.key.encode()).decode()
        self._authorization = f"Basic {key}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request as Codat does, or as a fault rule says."""
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        raw_path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("ascii")
        endpoint, params = resolve(request.method, raw_path)
        kind = endpoint.kind if endpoint else "unknown"
        with self._simulation.counters.count(kind, params.get("company", "")):
            fault: Fault | None = None
            try:
                self._check_access(request.headers)
                fault = self._simulation.draw_fault(kind)
                call = Call(
                    self._simulation, params, request.query_params, request.headers, body, fault
                )
                response = await self._respond(endpoint, call, receive)
            except ApiError as error:
                correlation_id = f"{self._simulation.rng.getrandbits(128):032x}"
                response = self._response(error.status, error.body(correlation_id), error.headers)
            if fault and fault.kind == "drop":
                await _drop_connection(send)
                return
            if fault and fault.kind == "truncated_body":
                content = bytes(response.body)
                response = self._response(response.status_code, content[: len(content) // 2])
            await response(scope, receive, send)

    def _check_access(self, headers: Mapping[str, str]) -> None:
        """Check the key and all limits. Raises ApiError 401 or 429.

        The key is encoded as a whole, there is no user name
        (docs.codat.io/using-the-api/authentication).
        """
        simulation, quota = self._simulation, self._simulation.quota
        authorization = headers.get("authorization", "").encode()
        if not hmac.compare_digest(authorization, self._authorization.encode()):
            raise ApiError(401)
        if simulation.counters.last_minute() > simulation.settings.minute_limit:
            raise ApiError(429, retry_after=60)
        if simulation.counters.in_flight.total() > simulation.concurrency_limit():
            raise ApiError(429, retry_after=1)
        if not quota.spend():
            raise ApiError(429, retry_after=quota.retry_after())
        if quota.remaining == 0:
            simulation.send_quota_event("reached")

    async def _respond(self, endpoint: Endpoint | None, call: Call, receive: Receive) -> Response:
        fault = call.fault
        if fault and fault.kind == "timeout":
            with suppress(TimeoutError):  # ends early when the client disconnects
                await asyncio.wait_for(receive(), fault.hold_seconds)
        if fault and fault.kind == "status":
            raise ApiError(fault.status, retry_after=fault.retry_after)
        if endpoint is None:
            raise ApiError(404)
        try:
            content = endpoint.handler(call)
        except UnknownIdError as error:
            service = "ClientsApi" if error.kind == "company" else EXPENSES_SERVICE
            raise ApiError(404, str(error), service) from None
        return self._response(202 if endpoint.method == "POST" else 200, content)

    def _response(
        self, status: int, content: Any, headers: dict[str, str] | None = None
    ) -> Response:
        """Build a response of JSON content, or of bytes as they are, with the quota headers."""
        if not isinstance(content, bytes):
            content = json.dumps(content, ensure_ascii=False).encode()
        own = {"Content-Type": "application/json; charset=utf-8"}
        return Response(content, status, own | self._simulation.quota.headers() | (headers or {}))


async def _drop_connection(send: Send) -> None:
    """Abort uvicorn's connection; in process, where there is none, raise the client's error."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
    transport.abort()
    await asyncio.sleep(0.01)  # uvicorn must notice before the application returns
