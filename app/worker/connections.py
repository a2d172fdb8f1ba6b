"""Keeps the connections that come with Codat's list of companies, while somebody else reads it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.db import connections
from app.db.engine import Database
from app.domain.models import CodatStatus, Connection

AT_ONCE = 100


class Listed(Protocol):
    """A company as Codat lists it, with its connections."""

    @property
    def company_id(self) -> str:
        """Codat's id."""

    @property
    def name(self) -> str | None:
        """Its name, if it has one."""

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Its links to platforms."""


class ListsCodat(Protocol):
    """What is needed of the Codat client."""

    def list_companies(self) -> AsyncIterator[Listed]:
        """All companies; raises CodatError."""

    async def list_statuses(self, company_id: str) -> list[CodatStatus]:
        """All syncs of one; raises CodatError."""


@dataclass(frozen=True, slots=True)
class NotingConnections:
    """Codat's lists, passed on as they come; the connections in them are kept on the way."""

    database: Database
    codat: ListsCodat
    clock: Callable[[], datetime]

    async def list_companies(self) -> AsyncIterator[Listed]:
        """All companies; raises CodatError, and StorageUnavailable."""
        asked_at = self.clock()
        some: list[Listed] = []
        async for company in self.codat.list_companies():
            some.append(company)
            if len(some) == AT_ONCE:
                await asyncio.to_thread(self._keep, some, asked_at)
                some = []
            yield company
        await asyncio.to_thread(self._keep, some, asked_at)

    async def list_statuses(self, company_id: str) -> list[CodatStatus]:
        """All syncs of one; raises CodatError."""
        return await self.codat.list_statuses(company_id)

    def _keep(self, listed: Sequence[Listed], asked_at: datetime) -> None:
        told = sorted(((each.company_id, each.connections) for each in listed), key=lambda e: e[0])
        with self.database.writing() as connection:
            for company_id, links in told:
                connections.merge_listed(connection, company_id, links, asked_at)
