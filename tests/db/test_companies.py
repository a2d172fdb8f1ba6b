"""Names and connections: what Codat reported last by its own clock counts, in whatever order."""

from dataclasses import replace
from datetime import datetime
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import select

from app.db import companies
from app.db.companies import Reconciled
from app.db.engine import Database
from app.db.sync_writer import lock_companies
from app.db.tables import companies as company_table
from app.db.tables import connections as connection_table
from app.domain.models import Company, PlatformConnection, WebhookEvent, WebhookPayload
from tests.factories import T0, after

LINKED = PlatformConnection("x1", "Xero", "Accounting", "Linked")


def reported(
    minutes: float,
    link: PlatformConnection | None = LINKED,
    event: str = "connected",
    name: str | None = None,
) -> WebhookEvent:
    payload = WebhookPayload(
        event_type=f"connection.{event}",
        parse_status="ok",
        company_id="c1",
        company_name=name,
        generated_at=after(minutes=minutes),
        connection=link,
    )
    return WebhookEvent(f"m{minutes}", T0, payload)


def record(database: Database, *events: WebhookEvent) -> None:
    with database.writing() as connection:
        lock_companies(connection, ["c1"])
        companies.record_events(connection, events)


def company(database: Database) -> Any:
    with database.reading() as connection:
        found = connection.execute(select(company_table).where(company_table.c.company_id == "c1"))
        return found.one()


def state(database: Database) -> str | None:
    shown: str | None = company(database).connection_state
    return shown


def stored(database: Database) -> list[tuple[object, ...]]:
    with database.reading() as connection:
        found = connection.execute(
            select(connection_table).order_by(connection_table.c.connection_id)
        )
        return [tuple(row) for row in found]


EVENTS = (
    reported(1, replace(LINKED, status="PendingAuth"), "created", name="Toft"),
    reported(2, name="Toft Stores"),
    reported(3, replace(LINKED, status="Deauthorized"), "disconnected", name="Ærø A"),
    reported(3, replace(LINKED, status="Unlinked"), "failed", name="Ærø B"),
)


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_the_latest_event_wins_in_any_order(database: Database, order: tuple[int, ...]) -> None:
    """By its own time; and repeating all of them changes nothing."""
    for n in order:
        record(database, EVENTS[n])
    for _ in range(2):
        found = company(database)
        assert (found.connection_state, found.platform) == ("Unlinked", "Xero")
        assert (found.name, found.name_folded) == ("Ærø B", "aro b")
        expected = ("c1", "x1", "Xero", "Accounting", "Unlinked", after(minutes=3))
        assert stored(database) == [expected]
        record(database, *(EVENTS[n] for n in order))


def test_an_event_without_a_name_or_connection_changes_neither(database: Database) -> None:
    """And one without a time, of the older generation, counts from its receipt."""
    record(database, reported(1, name="Toft"), reported(2, None))
    assert (company(database).name, state(database)) == ("Toft", "Linked")
    untimed = reported(0, None, name="Received at T0")
    record(database, replace(untimed, payload=replace(untimed.payload, generated_at=None)))
    assert company(database).name == "Toft"


def test_a_deleted_connection_is_deleted_although_the_body_says_linked(
    database: Database,
) -> None:
    """As in Codat's own example."""
    record(database, reported(1), reported(2, event="deleted"))
    assert state(database) == "Deleted"


def test_the_accounting_connection_is_shown_unless_it_was_deleted(database: Database) -> None:
    """It is the one that a sync writes into."""
    bank = PlatformConnection("x0", "Basiq", "Banking", "PendingAuth")
    record(database, reported(1), reported(9, bank))
    assert state(database) == "Linked"
    record(database, reported(10, event="deleted"))
    assert state(database) == "PendingAuth"


def listed(
    *connections: PlatformConnection, name: str | None = "Toft stores", company_id: str = "c1"
) -> Company:
    return Company(company_id, name, connections)


def record_listed(database: Database, *found: Company, at: datetime) -> None:
    with database.writing() as connection:
        companies.record_listed(connection, found, as_of=at)


def test_an_event_and_a_list_are_joined_by_time(database: Database) -> None:
    """An older list takes nothing back; a later one that lacks a connection deletes it.

    One that does not say which there are, or in which state one is, changes nothing.
    """
    record(database, reported(5, replace(LINKED, status="Deauthorized"), name="Now"))
    record_listed(database, listed(LINKED), at=after(minutes=4))
    assert (state(database), company(database).name) == ("Deauthorized", "Now")
    for silent in (Company("c1", "Now"), listed(replace(LINKED, status=None))):
        record_listed(database, silent, at=after(minutes=6))
        assert state(database) == "Deauthorized"
    another = replace(LINKED, connection_id="x2")
    record_listed(database, listed(another), at=after(minutes=7))
    assert [row[4] for row in stored(database)] == ["Deleted", "Linked"]
    assert state(database) == "Linked"
    record_listed(database, listed(), at=after(minutes=8))
    assert state(database) == "Deleted"


def test_many_companies_are_recorded_together(database: Database) -> None:
    """Without connections that have no id: they could not be distinguished from another."""
    unnamed = replace(LINKED, connection_id=None)
    many = [listed(LINKED, unnamed, company_id=f"c{n}") for n in range(1200)]
    record_listed(database, *many, at=T0)
    assert len(stored(database)) == 1200


def test_the_last_reconciliation_is_remembered(database: Database) -> None:
    """A time that is not given stays. Of a company that was erased meanwhile nothing is stored."""
    with database.writing() as connection:
        lock_companies(connection, ["c1", "c2"])
        companies.mark_reconciled(connection, "c1", Reconciled(T0, T0, T0))
        companies.mark_reconciled(connection, "c1", Reconciled(after(hours=1)))
        companies.mark_reconciled(connection, "erased", Reconciled(T0))
        assert companies.reconciled(connection) == {"c1": Reconciled(after(hours=1), T0, T0)}
