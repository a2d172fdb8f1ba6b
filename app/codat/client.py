"""Codat's REST API. Only `_request` and `list_statuses` do HTTP, within `_call`.

Answers are parsed leniently, member by member; errors are the three kinds of `app.errors`. Links in
answers and redirects are never followed: pages are requested by number. Nothing is retried here:
`app.domain.retry_policy` decides that, and the job queue stores it.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from app.codat.json_array import ArrayReader
from app.codat.rate_limiter import CallLimits
from app.codat.responses import (
    Page,
    TransactionList,
    combine_pages,
    error_for,
    read_answered_status,
    read_company,
    read_date,
    read_endpoints,
    read_listed_statuses,
    read_number,
    read_page,
    read_transactions,
    require_object,
    resolve_doubt,
)
from app.codat.transport import EnvironmentTransport
from app.codat.webhooks.payloads import identifier
from app.domain.models import Company, SyncStatus
from app.domain.webhook_loss import Endpoint
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable

PAGE_SIZE = 100
PAGES_AHEAD = 2  # of a transaction list; a third is hardly faster
MAX_PAGES = 2000
MAX_ANSWER_BYTES = 50 * 1024 * 1024
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
PIECE_BYTES = 256 * 1024  # that the event loop may parse without delaying others for long
_CONNECTIONS = httpx.Limits(max_connections=40, max_keepalive_connections=20)
CALL_TIMEOUT_S = 45.0  # httpx's own timeout is per read, which an answer that trickles never meets
LIST_TIMEOUT_S = 600.0
RESERVED_SYNC_IDS = frozenset({"latest", "lastsuccessful", "list"})  # other resources' paths

CallResult = Literal["ok", "refused", "rate_limited", "unavailable"]
_RESULTS: dict[type[CodatError], CallResult] = {
    CodatRefused: "refused",
    CodatRateLimited: "rate_limited",
    CodatUnavailable: "unavailable",
}


class CodatClient:
    """Calls Codat. Every method raises CodatRefused, CodatRateLimited or CodatUnavailable.

    `clock_skew` is our time minus Codat's, by the latest `Date` header; None when unknown.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: httpx.Timeout = TIMEOUT,
        limits: CallLimits | None = None,
        before_call: Callable[[], Awaitable[None]] | None = None,
        on_call: Callable[[CallResult, float], None] | None = None,
        on_quota: Callable[[int], None] | None = None,
    ) -> None:
        """`api_key` is the raw key or the finished `Basic …` header; the Portal shows both.

        `before_call` raises CodatRateLimited while calls must pause. `on_call` receives each call's
        result and its seconds; `on_quota` the calls that are left today (`X-Rate-Limit-Remaining`).
        """
        self.clock_skew: timedelta | None = None
        self.limits = limits or CallLimits()
        self._clock = clock
        self._before_call = before_call
        self._on_call = on_call or (lambda _result, _seconds: None)
        self._on_quota = on_quota or (lambda _remaining: None)
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={
                "authorization": authorization(api_key),
                "accept": "application/json",
                "user-agent": "codat-sync-receiver",
            },
            transport=transport or EnvironmentTransport(_CONNECTIONS),
            timeout=timeout,
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get_status(self, company_id: str, sync_id: str) -> SyncStatus:
        """One sync's status (Codat API, "Get sync status")."""
        answer = await self._request(_sync_path(company_id, sync_id, "status"), company_id)
        return read_answered_status(answer, company_id, sync_id)

    async def list_statuses(
        self, company_id: str, *, within_s: float = LIST_TIMEOUT_S
    ) -> AsyncGenerator[list[SyncStatus], None]:
        """All syncs of a company, in parts (Codat API, "List sync statuses").

        The answer is a bare array without pages or filters, of any size: it is parsed while it
        arrives, outside the event loop. A caller that may stop early must close the generator.
        """
        reader = ArrayReader()

        def parse(piece: bytes | None) -> list[SyncStatus]:
            try:
                rows = reader.feed(piece or b"", is_last=piece is None)
            except (ValueError, RecursionError) as error:
                raise CodatUnavailable("Codat's answer is not a list of sync statuses") from error
            return read_listed_statuses(rows, company_id)

        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        async with self._call(company_id), AsyncExitStack() as stack:
            async with asyncio.timeout_at(until):
                stream = self._http.stream("GET", _path(company_id, "syncs/list/status"))
                response = await stack.enter_async_context(stream)
                self._check(response, None if response.is_success else await _read_json(response))
            pieces = response.aiter_bytes(PIECE_BYTES)
            piece: bytes | None = b""
            while piece is not None:
                # no time limit may span the `yield`: it would cancel the caller
                async with asyncio.timeout_at(until):
                    piece = await anext(pieces, None)
                if loop.time() >= until:  # what is there already is read without waiting
                    raise TimeoutError
                if statuses := await asyncio.to_thread(parse, piece):
                    yield statuses

    async def list_transactions(
        self, company_id: str, sync_id: str, *, page_size: int = PAGE_SIZE
    ) -> TransactionList:
        """A sync's whole transaction list (Codat API, "List sync transactions").

        Without Codat's count the list ends at a page that is not full. A list that has a row on two
        pages is read a second time.
        """
        path = _sync_path(company_id, sync_id, "transactions")

        async def read(size: int) -> TransactionList:
            async with aclosing(self._pages(path, size, company_id, ahead=PAGES_AHEAD)) as pages:
                return combine_pages(
                    [replace(page, rows=read_transactions(page.rows)) async for page in pages]
                )

        found = await read(page_size)
        return resolve_doubt(found, await read(page_size - 1 or 2)) if found.doubtful else found

    async def list_companies(self) -> AsyncIterator[Company]:
        """All our companies with their connections (Codat API, "List companies")."""
        async for page in self._pages("/companies", PAGE_SIZE, None):
            for company in filter(None, map(read_company, page.rows)):
                yield company

    async def get_config(self, company_id: str) -> dict[str, Any]:
        """A company's sync configuration, unchanged (Codat API, "Get configuration")."""
        answer = await self._request(_path(company_id, "config"), company_id)
        return require_object(answer, "configuration")

    async def list_consumers(self) -> list[Endpoint]:
        """Our webhook endpoints (Codat API, "List webhook consumers"): at most 50, no pages."""
        return read_endpoints(await self._request("/webhooks", None))

    async def initiate_sync(
        self, company_id: str, dataset_ids: Sequence[str], *, idempotency_key: str
    ) -> str:
        """Start a sync of datasets and return its id (Codat API v1, "Initiate sync").

        The key, a UUID, makes a repetition harmless for 90 minutes (Codat docs, "Idempotency").
        """
        answer = await self._request(
            _path(company_id, "syncs"),
            company_id,
            method="POST",
            json={"datasetIds": list(dataset_ids)},
            headers={"idempotency-key": idempotency_key},
        )
        sync_id = identifier(require_object(answer, "started sync").get("syncId"))
        if sync_id is None:
            raise CodatUnavailable("Codat's answer has no sync ID")
        return sync_id

    async def _pages(
        self, path: str, page_size: int, company_id: str | None, *, ahead: int = 0
    ) -> AsyncGenerator[Page, None]:
        """The pages of a list, from 1 to its end; up to `ahead` of them are requested early.

        A list that repeats a page, or has two short pages in a row, contradicts its own count:
        reading on would only cost calls. A caller that may stop early must close the generator,
        which cancels the requests that are under way.
        """

        async def request(number: int) -> Page:
            query = {"page": number, "pageSize": page_size}
            return read_page(await self._request(path, company_id, params=query), page_size)

        previous: Page | None = None
        requested: list[asyncio.Task[Page]] = []
        try:
            for number in range(1, MAX_PAGES + 1):
                page = await (requested.pop(0) if requested else request(number))
                ends = page.is_last(number) or (previous and page.contradicts(previous))
                last = number if ends else min(number + ahead, MAX_PAGES)
                upcoming = range(number + len(requested) + 1, last + 1)
                requested += [asyncio.create_task(request(n)) for n in upcoming if page.has_page(n)]
                yield page
                if ends:
                    return
                previous = page
        finally:
            for task in requested:
                task.cancel()
            await asyncio.gather(*requested, return_exceptions=True)

    @asynccontextmanager
    async def _call(self, company_id: str | None) -> AsyncIterator[None]:
        """One call, when it may be made. Every failure becomes a CodatError."""
        async with self.limits.slot(company_id):
            if self._before_call:
                await self._before_call()
            self.limits.check()
            started = time.monotonic()
            try:
                with _as_codat_errors():
                    yield
            except CodatError as error:
                self._on_call(_RESULTS[type(error)], time.monotonic() - started)
                raise
            self._on_call("ok", time.monotonic() - started)

    async def _request(
        self, path: str, company_id: str | None, *, method: str = "GET", **options: Any
    ) -> Any:
        """The decoded JSON of a success, bounded in total time and size."""
        async with (
            self._call(company_id),
            asyncio.timeout(CALL_TIMEOUT_S),
            self._http.stream(method, path, **options) as response,
        ):
            body = await _read_json(response)
            self._check(response, body)
            if body is None:
                raise CodatUnavailable("Codat's answer cannot be read", status=response.status_code)
            return body

    def _check(self, response: httpx.Response, body: Any) -> None:
        """Raise the CodatError for an unsuccessful answer; use what the headers say."""
        status, headers, now = response.status_code, response.headers, self._clock()
        if date := read_date(headers.get("date", "")):
            self.clock_skew = now - date
        remaining = read_number(headers.get("x-rate-limit-remaining", ""))
        if remaining is not None:
            self._on_quota(remaining)
        if status == 429:
            self.limits.pause()
        if not response.is_success:
            raise error_for(status, headers, body, now)


@contextmanager
def _as_codat_errors() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise CodatUnavailable("Codat's answer took too long") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CodatUnavailable(f"Cannot connect to Codat ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """Why no answer came, for operators: "connection refused", or what the HTTP library says."""
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    return str(error).rstrip(".") or type(error).__name__


def authorization(api_key: str) -> str:
    """The `Authorization` header: `Basic` and the base64 of the key itself, not of `user:key`
    (Codat docs, "Authentication").
    """
    key = api_key.strip()
    if key[:6].lower() == "basic ":
        return f"Basic {key[6:].strip()}"
    return "Basic " + base64.b64encode(key.encode()).decode()


def _segment(part: str) -> str:
    """One segment of a path. Raises CodatRefused for dots: they would name another resource."""
    if part in (".", ".."):
        raise CodatRefused(f"{part!r} is not a valid ID")
    return quote(part, safe="")


def _path(company_id: str, tail: str) -> str:
    return f"/companies/{_segment(company_id)}/sync/expenses/{tail}"


def _sync_path(company_id: str, sync_id: str, part: str) -> str:
    if sync_id.strip().lower() in RESERVED_SYNC_IDS:  # Codat's server ignores the case of paths
        raise CodatRefused(f"{sync_id!r} is not a valid sync ID")
    return _path(company_id, f"syncs/{_segment(sync_id)}/{part}")


async def _read_json(response: httpx.Response) -> Any:
    """The decoded body; None when it is no JSON or larger than `MAX_ANSWER_BYTES`."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    is_large = len(body) > PIECE_BYTES
    return await asyncio.to_thread(_parse_json, body) if is_large else _parse_json(body)


def _parse_json(body: bytearray) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
