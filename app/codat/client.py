"""Codat's REST API. `_call` is the only place that does HTTP.

Answers are read leniently, member by member; errors are the three kinds of `app.errors`. Links in
answers are never followed and redirects never taken: pages are counted. Retrying is not done here:
`app.domain.retry_policy` decides that, and the debt is kept in the database.
"""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote

import httpx

from app.codat.errors import refusal
from app.codat.pagination import counted
from app.codat.rate_limiter import Limits
from app.codat.responses import (
    Company,
    Consumer,
    Page,
    TransactionList,
    TransactionPage,
    judged,
    listed,
    read_company,
    read_config,
    read_connections,
    read_consumers,
    read_items,
    read_one_status,
    read_page,
    read_statuses,
    read_sync_id,
)
from app.domain.models import CodatStatus, Connection, Item
from app.errors import CodatRateLimited, CodatRefused, CodatUnavailable

PAGE_SIZE = 100
AHEAD = 2  # of a transaction list; one page more is hardly faster
LARGEST_ANSWER = 50 * 1024 * 1024
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
WHOLE_CALL_S = 45.0  # httpx's own time is per read: who drips bytes would never be too slow
NOT_A_SYNC = frozenset({"latest", "lastSuccessful", "list"})  # other resources at a sync's place


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: httpx.Headers
    told: Any


class CodatClient:
    """Asks Codat. Every method raises CodatRefused, CodatRateLimited or CodatUnavailable."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: httpx.Timeout = TIMEOUT,
        whole_call_s: float = WHOLE_CALL_S,
        limits: Limits | None = None,
        gate: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`api_key` is the raw key or the finished `Basic …` header; the Portal shows both.

        `gate` is awaited before each call and raises CodatRateLimited while calls must rest.
        """
        self._gate = gate
        self._whole_call_s = whole_call_s
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={
                "authorization": authorization(api_key),
                "accept": "application/json",
                "user-agent": "codat-sync-receiver",
            },
            transport=transport,
            timeout=timeout,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=40, max_keepalive_connections=20),
        )
        self._limits = limits or Limits()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def share_limits(self, callers: int) -> None:
        """Take one part of Codat's limit of calls a minute, of so many processes that call it."""
        self._limits.share(callers)

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def get_status(self, company_id: str, sync_id: str) -> CodatStatus:
        """One sync's status (Codat API, "Get sync status")."""
        return read_one_status(await self._get(_syncs(company_id, sync_id, "status"), company_id))

    async def list_statuses(self, company_id: str) -> list[CodatStatus]:
        """All syncs of a company (Codat API, "List sync statuses"): a bare array, no pages."""
        path = f"{_company(company_id)}/sync/expenses/syncs/list/status"
        return read_statuses(await self._get(path, company_id))

    async def list_transactions(
        self, company_id: str, sync_id: str, *, page_size: int = PAGE_SIZE
    ) -> TransactionList:
        """A sync's whole transaction list, page after page (Codat API, "List sync transactions").

        Without Codat's count the list ends at a page that is not full. A list in which a row
        stands on two pages is read twice.
        """

        async def read(size: int) -> TransactionList:
            async with aclosing(self._pages(path, size, company_id, ahead=AHEAD)) as coming:
                pages = [_transactions(page) async for page in coming]
            return listed(pages)

        path = _syncs(company_id, sync_id, "transactions")
        found = await read(page_size)
        return judged(found, await read(page_size - 1 or 2)) if found.doubtful else found

    async def get_transaction(
        self, company_id: str, sync_id: str, transaction_id: str
    ) -> list[Item]:
        """The rows of one transaction in a sync (Codat API, "Get sync transaction")."""
        path = _syncs(company_id, sync_id, "transactions", transaction_id)
        return list(read_items(await self._get(path, company_id)))

    async def list_companies(self, *, page_size: int = PAGE_SIZE) -> AsyncIterator[Company]:
        """All our companies, page after page (Codat API, "List companies")."""
        async for page in self._pages("/companies", page_size, None):
            for company in map(read_company, page.rows):
                if company:
                    yield company

    async def list_connections(self, company_id: str) -> tuple[Connection, ...]:
        """A company's connections (Codat API, "List connections")."""
        found: list[Connection] = []
        path = f"{_company(company_id)}/connections"
        async for page in self._pages(path, PAGE_SIZE, company_id):
            found += read_connections(page.rows)
        return tuple(found)

    async def get_config(self, company_id: str) -> dict[str, Any]:
        """A company's sync configuration, as Codat gives it (Codat API, "Get configuration")."""
        path = f"{_company(company_id)}/sync/expenses/config"
        return read_config(await self._get(path, company_id))

    async def list_consumers(self) -> list[Consumer]:
        """Our webhook endpoints (Codat API, "List webhook consumers"): at most 50, no pages."""
        return read_consumers(await self._get("/webhooks", None))

    async def initiate_sync(
        self, company_id: str, dataset_ids: Sequence[str], *, idempotency_key: str
    ) -> str:
        """Start a sync of datasets; the new sync's id (Codat API v1, "Initiate sync").

        The key, a UUID, makes asking twice harmless for 90 minutes (Codat docs, "Idempotency").
        """
        told = await self._call(
            "POST",
            f"{_company(company_id)}/sync/expenses/syncs",
            company_id,
            json={"datasetIds": list(dataset_ids)},
            headers={"idempotency-key": idempotency_key},
        )
        return read_sync_id(told)

    def _pages(
        self, path: str, page_size: int, company_id: str | None, *, ahead: int = 0
    ) -> AsyncGenerator[Page, None]:
        """The list's pages. Links are not followed."""

        async def ask(number: int) -> Page:
            query = {"page": number, "pageSize": page_size}
            return read_page(await self._get(path, company_id, query), page_size)

        return counted(ask, ahead=ahead)

    async def _get(
        self, path: str, company_id: str | None, query: dict[str, int] | None = None
    ) -> Any:
        return await self._call("GET", path, company_id, params=query)

    async def _call(self, method: str, path: str, company_id: str | None, **more: Any) -> Any:
        """The decoded JSON of a success; everything else raises."""
        async with self._limits.turn(company_id):
            if self._gate:
                await self._gate()
            self._limits.check()
            answer = await self._answer(method, path, more)
        if 200 <= answer.status < 300:
            if answer.told is None:
                raise CodatUnavailable("Codat's answer cannot be read", status=answer.status)
            return answer.told
        refused = refusal(answer.status, answer.headers, answer.told, datetime.now(UTC))
        if isinstance(refused, CodatRateLimited):
            self._limits.rest()
        raise refused

    async def _answer(self, method: str, path: str, more: dict[str, Any]) -> _Answer:
        """One exchange, within a time for all of it and a size for all of it."""
        try:
            async with (
                asyncio.timeout(self._whole_call_s),
                self._http.stream(method, path, **more) as coming,
            ):
                return _Answer(coming.status_code, coming.headers, _decoded(await _body(coming)))
        except TimeoutError as error:
            raise CodatUnavailable("Codat's answer came too slowly") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            kind = type(error).__name__
            raise CodatUnavailable(f"Codat cannot be reached: {kind}") from error


def authorization(api_key: str) -> str:
    """The `Authorization` header: `Basic` and the base64 of the key itself, not of `user:key`
    (Codat docs, "Authentication").
    """
    key = api_key.strip()
    if key[:6].lower() == "basic ":
        return f"Basic {key[6:].strip()}"
    return "Basic " + base64.b64encode(key.encode()).decode()


def _quoted(part: str) -> str:
    """One segment of a path. Raises CodatRefused for dots: they would name another resource."""
    if part in (".", ".."):
        raise CodatRefused(f"{part!r} is no id: Codat cannot be asked about it")
    return quote(part, safe="")


def _company(company_id: str) -> str:
    return f"/companies/{_quoted(company_id)}"


def _syncs(company_id: str, sync_id: str, *parts: str) -> str:
    if sync_id in NOT_A_SYNC:
        raise CodatRefused(f"{sync_id!r} is no sync's id: Codat cannot be asked about it")
    tail = "/".join(map(_quoted, (sync_id, *parts)))
    return f"{_company(company_id)}/sync/expenses/syncs/{tail}"


async def _body(coming: httpx.Response) -> bytes:
    """All of it, unpacked; empty, which no reader understands, when it is larger than we take."""
    chunks, size = [], 0
    async for chunk in coming.aiter_bytes():
        size += len(chunk)
        if size > LARGEST_ANSWER:
            return b""
        chunks.append(chunk)
    return b"".join(chunks)


def _transactions(page: Page) -> TransactionPage:
    return TransactionPage(read_items(page.rows), page.size, page.total)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
