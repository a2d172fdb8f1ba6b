"""A company's connection is what was told last by Codat's clock, in whatever order."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path

import pytest
from sqlalchemy import select

from app.codat.responses import Company
from app.codat.webhooks import payloads as codat_events
from app.db import connections
from app.db.engine import Database
from app.db.keep import keep_all
from app.db.queries import companies as queries_companies
from app.db.queries import syncs as queries
from app.db.tables import connections as table
from app.domain.models import CodatStatus, Connection, Delivery, Event
from app.worker.connections import NotingConnections
from tests.reports import T0, after, delivery
from tests.worker.tasks.test_reconcile import reconcile, status
from tests.worker.test_fetcher import Clock

SAMPLES = Path(__file__).parents[1] / "samples" / "codat"
LINKED = Connection("x1", "Xero", "Accounting", "Linked")


def event(
    message_id: str, minutes: float, link: Connection = LINKED, kind: str = "connected"
) -> Delivery:
    told = Event(
        event=f"connection.{kind}",
        reading="ok",
        company_id="c1",
        generated_at=after(minutes=minutes),
        connection=link,
    )
    return Delivery(message_id, T0, b"{}", told)


def keep(database: Database, *told: Delivery) -> None:
    for each in told:
        with database.writing() as connection:
            keep_all(connection, [each])


def shown(database: Database) -> str | None:
    with database.reading() as connection:
        return queries_companies.get_company(connection, "c1").connection_state


def kept(database: Database) -> list[tuple[object, ...]]:
    with database.reading() as connection:
        found = connection.execute(select(table).order_by(table.c.connection_id))
        return [tuple(row) for row in found]


NEWS = (
    event("m1", 1, replace(LINKED, status="PendingAuth"), "created"),
    event("m2", 2),
    event("m3", 3, replace(LINKED, status="Deauthorized"), "disconnected"),
    event("m4", 3, replace(LINKED, status="Unlinked"), "failed"),
)


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_the_newest_event_wins_in_any_order(database: Database, order: tuple[int, ...]) -> None:
    """By its own time; and repeating all of them changes nothing."""
    keep(database, *(NEWS[n] for n in order))
    assert shown(database) == "Unlinked"
    assert kept(database) == [("c1", "x1", "Xero", "Accounting", "Unlinked", after(minutes=3))]


def test_one_commit_with_all_of_it_ends_the_same(database: Database) -> None:
    """As in a burst."""
    with database.writing() as connection:
        keep_all(connection, NEWS)
    assert shown(database) == "Unlinked"


def test_a_deleted_connection_is_deleted_although_codat_still_says_linked(
    database: Database,
) -> None:
    """As in Codat's own example."""
    keep(database, event("m1", 1), event("m2", 2, kind="deleted"))
    assert shown(database) == "Deleted"


def test_the_accounting_connection_is_shown_unless_it_was_deleted(database: Database) -> None:
    """It is the one that a sync writes into."""
    bank = Connection("x0", "Basiq", "Banking", "PendingAuth")
    keep(database, event("m1", 1), event("m2", 9, bank))
    assert shown(database) == "Linked"
    keep(database, event("m3", 10, kind="deleted"))
    assert shown(database) == "PendingAuth"


def test_a_sync_shows_its_companys_platform(database: Database) -> None:
    """Null while nobody told it."""
    keep(database, delivery("m0"))
    with database.reading() as connection:
        assert queries.get_sync(connection, "s1").source_platform is None
    assert shown(database) is None
    keep(database, event("m1", 1))
    with database.reading() as connection:
        assert queries.get_sync(connection, "s1").source_platform == "Xero"
        (listed,) = queries.list_syncs(connection, queries.SyncFilter()).items
    assert listed.source_platform == "Xero"


@pytest.mark.parametrize(
    ("sample", "state", "platform"),
    [
        ("d40-connection.connected.json", "Linked", "Basiq"),
        ("d40-connection.deleted.json", "Deleted", "Basiq"),
        ("d40-connection.failed.json", "PendingAuth", "Basiq"),
        ("d40-connection.disconnected-2.json", "Deauthorized", "Basiq"),
        ("d41-connection.created-type-key.json", "PendingAuth", "Basiq"),
        ("d42-legacy-DataConnectionStatusChanged.json", "Linked", None),
    ],
)
def test_codats_own_samples_are_kept(
    database: Database, sample: str, state: str, platform: str | None
) -> None:
    """Both generations; the older one tells no platform."""
    raw = (SAMPLES / sample).read_bytes()
    keep(database, Delivery("m1", T0, raw, codat_events.read(raw)))
    (row,) = kept(database)
    assert (row[4], row[2]) == (state, platform)


@dataclass
class Codat:
    """Codat's list of companies, with their connections."""

    told: list[Company] = field(default_factory=list)

    async def list_companies(self) -> AsyncIterator[Company]:
        for each in self.told:
            yield each

    async def list_statuses(self, _company_id: str) -> list[CodatStatus]:
        return [status("s1")]


def listed(database: Database, *links: Connection, minutes: float) -> None:
    clock = Clock()
    clock.now = after(minutes=minutes)
    codat = Codat([Company("c1", "Toft stores", links)])
    reconcile(database, NotingConnections(database, codat, clock))  # type: ignore[arg-type]


def test_reconciliation_brings_what_no_event_told(database: Database) -> None:
    """Without a call of its own: the list of companies has the connections in it."""
    listed(database, LINKED, minutes=1)
    assert shown(database) == "Linked"
    with database.reading() as connection:
        assert queries.get_sync(connection, "s1").source_platform == "Xero"


def test_an_event_and_a_list_are_joined_by_time(database: Database) -> None:
    """An older list takes nothing back; a later one that lacks a connection has it deleted."""
    keep(database, event("m1", 5, replace(LINKED, status="Deauthorized")))
    listed(database, LINKED, minutes=4)
    assert shown(database) == "Deauthorized"
    listed(database, minutes=6)
    assert shown(database) == "Deauthorized"
    listed(database, replace(LINKED, connection_id="x2"), minutes=7)
    assert [row[4] for row in kept(database)] == ["Deleted", "Linked"]
    assert shown(database) == "Linked"


def test_many_companies_are_kept_in_batches_and_passed_on(database: Database) -> None:
    """Whoever reads the list sees every company, once."""
    companies = [Company(f"c{n:03}", None, (LINKED,)) for n in range(250)]
    noting = NotingConnections(database, Codat(companies), Clock())

    async def read() -> list[str]:
        return [each.company_id async for each in noting.list_companies()]

    assert asyncio.run(read()) == [each.company_id for each in companies]
    assert len(kept(database)) == 250


def test_a_connection_without_an_id_is_left_out(database: Database) -> None:
    """It could not be told from another."""
    with database.writing() as connection:
        connections.merge_listed(connection, "c1", [replace(LINKED, connection_id=None)], T0)
    assert kept(database) == []
