"""Codat's REST API. `_call` is the only place that does HTTP.

Answers are read leniently, member by member; errors are the three kinds of `app.errors`. Links in
answers are never followed and redirects never taken: pages are counted. Retrying is not done here:
`app.rules.retry` decides that, and the debt is kept in the database.
"""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote

import httpx

from app.codat.answers import Company, Consumer, TransactionList, TransactionPage, listed
from app.codat.events import identifier, read_item, read_status, text
from app.codat.limits import Limits
from app.codat.refusals import refusal
from app.errors import CodatRateLimited, CodatUnavailable
from app.rules.news import CodatStatus, Connection, Item

PAGE_SIZE = 100
MOST_PAGES = 2000
LARGEST_ANSWER = 50 * 1024 * 1024
TIMEOUT = httpx.Timeout(30.0, connect=10.0)


@dataclass(frozen=True, slots=True)
class _Page:
    rows: list[Any]
    size: int
    total: int | None


class CodatClient:
    """Asks Codat. Every method raises CodatRefused, CodatRateLimited or CodatUnavailable."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: httpx.Timeout = TIMEOUT,
        gate: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`api_key` is the raw key or the finished `Basic …` header; the Portal shows both.

        `gate` is awaited before each call and raises CodatRateLimited while calls must rest.
        """
        self._gate = gate
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
        self._limits = Limits()

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
        told = await self._get(_syncs(company_id, sync_id, "status"), company_id)
        if not isinstance(told, dict):
            raise CodatUnavailable("Codat's answer is not a sync status")
        return read_status(told)

    async def list_statuses(self, company_id: str) -> list[CodatStatus]:
        """All syncs of a company (Codat API, "List sync statuses"): a bare array, no pages."""
        told = await self._get(_syncs(company_id, "list", "status"), company_id)
        if not isinstance(told, list):
            raise CodatUnavailable("Codat's answer is not a list of sync statuses")
        return [read_status(each) for each in told if isinstance(each, dict)]

    async def list_transactions(
        self,
        company_id: str,
        sync_id: str,
        *,
        page_size: int = PAGE_SIZE,
        on_page: Callable[[], Awaitable[None]] | None = None,
    ) -> TransactionList:
        """A sync's whole transaction list, page after page (Codat API, "List sync transactions").

        Ends at Codat's own count or at an empty page, whichever comes first. `on_page` is awaited
        after each page.
        """
        path = _syncs(company_id, sync_id, "transactions")
        pages = []
        async for page in self._pages(path, page_size, company_id):
            items = tuple(item for item in map(read_item, page.rows) if item)
            pages.append(TransactionPage(items, page.size, page.total))
            if on_page:
                await on_page()
        return listed(pages)

    async def get_transaction(
        self, company_id: str, sync_id: str, transaction_id: str
    ) -> list[Item]:
        """The rows of one transaction in a sync (Codat API, "Get sync transaction")."""
        path = _syncs(company_id, sync_id, "transactions", transaction_id)
        told = await self._get(path, company_id)
        if not isinstance(told, list):
            raise CodatUnavailable("Codat's answer is not a list of transactions")
        return [item for item in map(read_item, told) if item]

    async def list_companies(self, *, page_size: int = PAGE_SIZE) -> AsyncIterator[Company]:
        """All our companies, page after page (Codat API, "List companies")."""
        async for page in self._pages("/companies", page_size, None):
            for row in page.rows:
                company_id = identifier(row.get("id")) if isinstance(row, dict) else None
                if company_id:
                    connections = _connections(row.get("dataConnections"))
                    yield Company(company_id, text(row.get("name"), 200), connections)

    async def list_connections(self, company_id: str) -> tuple[Connection, ...]:
        """A company's connections (Codat API, "List connections")."""
        found: list[Connection] = []
        path = f"/companies/{_quoted(company_id)}/connections"
        async for page in self._pages(path, PAGE_SIZE, company_id):
            found += _connections(page.rows)
        return tuple(found)

    async def get_config(self, company_id: str) -> dict[str, Any]:
        """A company's sync configuration, as Codat gives it (Codat API, "Get configuration")."""
        path = f"/companies/{_quoted(company_id)}/sync/expenses/config"
        told = await self._get(path, company_id)
        if not isinstance(told, dict):
            raise CodatUnavailable("Codat's answer is not a configuration")
        return told

    async def list_consumers(self) -> list[Consumer]:
        """Our webhook endpoints (Codat API, "List webhook consumers"): at most 50, no pages."""
        told = await self._get("/webhooks", None)
        rows = told.get("results") if isinstance(told, dict) else None
        return [_consumer(row) for row in rows or () if isinstance(row, dict)]

    async def initiate_sync(
        self, company_id: str, dataset_ids: Sequence[str], *, idempotency_key: str
    ) -> str:
        """Start a sync of datasets; the new sync's id (Codat API v1, "Initiate sync").

        The key, a UUID, makes asking twice harmless for 90 minutes (Codat docs, "Idempotency").
        """
        told = await self._call(
            "POST",
            f"/companies/{_quoted(company_id)}/sync/expenses/syncs",
            company_id,
            json={"datasetIds": list(dataset_ids)},
            headers={"idempotency-key": idempotency_key},
        )
        sync_id = identifier(told.get("syncId")) if isinstance(told, dict) else None
        if sync_id is None:
            raise CodatUnavailable("Codat's answer names no sync")
        return sync_id

    async def _pages(
        self, path: str, page_size: int, company_id: str | None
    ) -> AsyncIterator[_Page]:
        """Count pages until Codat's total, or an empty page, is reached. Links are not followed."""
        for number in range(1, MOST_PAGES + 1):
            query = {"page": number, "pageSize": page_size}
            page = _page(await self._get(path, company_id, query), page_size)
            yield page
            if not page.rows or page.total is None or number * page.size >= page.total:
                return

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
            try:
                answer = await self._http.request(method, path, **more)
            except httpx.HTTPError as error:
                kind = type(error).__name__
                raise CodatUnavailable(f"Codat cannot be reached: {kind}") from error
        told = _decoded(answer)
        if answer.is_success:
            if told is None:
                raise CodatUnavailable("Codat's answer cannot be read", status=answer.status_code)
            return told
        refused = refusal(answer.status_code, answer.headers, told, datetime.now(UTC))
        if isinstance(refused, CodatRateLimited):
            self._limits.rest()
        raise refused


def authorization(api_key: str) -> str:
    """The `Authorization` header: `Basic` and the base64 of the key itself, not of `user:key`
    (Codat docs, "Authentication").
    """
    key = api_key.strip()
    if key[:6].lower() == "basic ":
        return f"Basic {key[6:].strip()}"
    return "Basic " + base64.b64encode(key.encode()).decode()


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _syncs(company_id: str, *parts: str) -> str:
    tail = "/".join(map(_quoted, parts))
    return f"/companies/{_quoted(company_id)}/sync/expenses/syncs/{tail}"


def _decoded(answer: httpx.Response) -> Any:
    if len(answer.content) > LARGEST_ANSWER:
        return None
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


def _page(told: Any, asked: int) -> _Page:
    """A page of results; its size is what was asked for, or less where Codat says so."""
    rows = told.get("results") if isinstance(told, dict) else None
    if not isinstance(rows, list):
        raise CodatUnavailable("Codat's answer is not a page of results")
    total = told.get("totalResults")
    counted = isinstance(total, int) and not isinstance(total, bool) and total >= 0
    size = told.get("pageSize")
    sized = isinstance(size, int) and not isinstance(size, bool) and 0 < size < asked
    return _Page(rows, size if sized else asked, total if counted else None)


def _connections(told: Any) -> tuple[Connection, ...]:
    rows = told if isinstance(told, list) else []
    return tuple(
        Connection(
            identifier(row.get("id")),
            text(row.get("platformName"), 200),
            text(row.get("sourceType"), 200),
            text(row.get("status"), 200),
        )
        for row in rows
        if isinstance(row, dict)
    )


def _consumer(row: dict[str, Any]) -> Consumer:
    types = row.get("eventTypes")
    return Consumer(
        identifier(row.get("id")),
        text(row.get("url"), 2000),
        row.get("disabled") is True,
        tuple(name for name in types if isinstance(name, str)) if isinstance(types, list) else (),
    )
