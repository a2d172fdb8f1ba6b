"""Companies: their names, their connections to platforms, and when they were reconciled.

Each value is stored with the time, by Codat's clock, at which it was true. The latest one wins, so
events and lists may arrive in any order and any number of times. Of several connections of a
company, the one that a sync writes into is shown: the accounting software's, unless it was deleted;
else the one that was reported last.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, ScalarSelect, and_, case, func, or_, select, update

from app.db.many_rows import Insert, insert_many, insert_statement, is_any_of
from app.db.sync_writer import lock_companies
from app.db.tables import companies, connections
from app.domain.models import Company, PlatformConnection, WebhookEvent
from app.domain.names import fold_name

DELETED = "Deleted"
_DELETED_EVENT = "connection.deleted"


def record_events(connection: Connection, events: Sequence[WebhookEvent]) -> None:
    """Store the names and connections that these events report.

    The caller has locked their companies (`sync_writer.lock_companies`).
    """
    names: list[tuple[str, str | None, datetime]] = []
    rows: list[dict[str, Any]] = []
    for event in events:
        payload = event.payload
        if not payload.company_id:
            continue
        as_of = payload.generated_at or event.received_at
        names.append((payload.company_id, payload.company_name, as_of))
        if payload.connection:
            # Codat's own example of a deletion still has `Linked`: the event decides.
            is_deleted = payload.event_type == _DELETED_EVENT
            link = replace(payload.connection, status=DELETED) if is_deleted else payload.connection
            rows += _connection_rows(payload.company_id, [link], as_of)
    _record_names(connection, names)
    _record_connections(connection, rows)


def record_listed(connection: Connection, listed: Iterable[Company], *, as_of: datetime) -> None:
    """Store names and connections as Codat lists them; `as_of` is when the list was requested.

    Connections that are no longer listed are deleted, unless a company's list of them is absent.
    """
    by_id = {company.company_id: company for company in listed}
    lock_companies(connection, by_id)
    names = [(company.company_id, company.name, as_of) for company in by_id.values()]
    _record_names(connection, names)
    listed_links = {key: company.connections for key, company in by_id.items()}
    rows = []
    for company_id, links in listed_links.items():
        rows += _connection_rows(company_id, links or (), as_of)
    complete = [company_id for company_id, links in listed_links.items() if links is not None]
    _record_connections(connection, rows, complete, listed_at=as_of)


def _record_names(
    connection: Connection, names: Iterable[tuple[str, str | None, datetime]]
) -> None:
    """Replace names by later ones; of two at one time by the greater: order does not matter."""
    latest: dict[str, tuple[datetime, str]] = {}
    for company_id, name, as_of in names:
        if name:
            latest[company_id] = max((as_of, name), latest.get(company_id, (as_of, name)))
    rows = [
        {"company_id": key, "name": name, "name_folded": fold_name(name), "name_as_of": as_of}
        for key, (as_of, name) in sorted(latest.items())
    ]
    insert_many(connection, companies, rows, _or_replace_name)


def _or_replace_name(statement: Insert) -> Insert:
    new = statement.excluded
    is_later = or_(
        companies.c.name_as_of.is_(None),
        companies.c.name_as_of < new.name_as_of,
        and_(companies.c.name_as_of == new.name_as_of, companies.c.name < new.name),
    )
    changed = {name: new[name] for name in ("name", "name_folded", "name_as_of")}
    return statement.on_conflict_do_update(
        index_elements=["company_id"], set_=changed, where=is_later
    )


def _connection_rows(
    company_id: str, listed: Iterable[PlatformConnection], as_of: datetime
) -> list[dict[str, Any]]:
    return [
        {
            "company_id": company_id,
            "connection_id": link.connection_id,
            "platform": link.platform_name,
            "source_type": link.source_type,
            "state": link.status,
            "as_of": as_of,
        }
        for link in listed
        if link.connection_id
    ]


def _record_connections(
    connection: Connection,
    rows: Sequence[dict[str, Any]],
    complete: Collection[str] = (),
    *,
    listed_at: datetime | None = None,
) -> None:
    """The latest state counts; of two at one time the greater, so that order does not matter.

    Platform and type of a connection never change: they are what any report says. Of the `complete`
    companies, connections that are not among the rows are deleted. What is shown is copied to the
    company, so that lists need not search.
    """
    if rows:
        # one row at a time: a connection may be in several of them
        upsert = insert_statement(connection, connections, _or_replace_state)
        in_order = sorted(rows, key=lambda row: (row["company_id"], row["connection_id"]))
        connection.execute(upsert, in_order)
    if complete and listed_at:  # what was listed is now as old as the list, or younger
        mine = is_any_of(connection, connections.c.company_id, complete)
        unlisted = update(connections).where(mine, connections.c.as_of < listed_at)
        connection.execute(unlisted.values(state=DELETED, as_of=listed_at))
    if company_ids := {row["company_id"] for row in rows} | set(complete):
        these = is_any_of(connection, companies.c.company_id, company_ids)
        connection.execute(update(companies).where(these).values(_SHOWN))


def _or_replace_state(statement: Insert) -> Insert:
    new = statement.excluded
    is_newer = or_(
        connections.c.as_of < new.as_of,
        and_(connections.c.as_of == new.as_of, func.coalesce(connections.c.state, "") < new.state),
    )
    state = func.coalesce(new.state, connections.c.state)
    changed: dict[str, Any] = {
        name: case((is_newer, value), else_=connections.c[name])
        for name, value in {"state": state, "as_of": new.as_of}.items()
    }
    for name in ("platform", "source_type"):
        changed[name] = func.coalesce(connections.c[name], new[name])
    key = ["company_id", "connection_id"]
    return statement.on_conflict_do_update(index_elements=key, set_=changed)


def _shown(column: Column[str | None]) -> ScalarSelect[Any]:
    return (
        select(column)
        .where(connections.c.company_id == companies.c.company_id)
        .order_by(
            case((connections.c.state == DELETED, 1), else_=0),
            case((func.lower(connections.c.source_type) == "accounting", 0), else_=1),
            connections.c.as_of.desc(),
            connections.c.connection_id,
        )
        .limit(1)
        .correlate(companies)
        .scalar_subquery()
    )


_SHOWN = {
    "platform": _shown(connections.c.platform),
    "connection_state": _shown(connections.c.state),
}


class Reconciled(NamedTuple):
    """When a company was compared with Codat's list of its syncs, partly and as a whole.

    `through` is the latest time of a sync in that list, by Codat's clock.
    """

    at: datetime | None = None
    fully_at: datetime | None = None
    through: datetime | None = None


def reconciled(connection: Connection) -> dict[str, Reconciled]:
    """How far each company was reconciled; those that never were are left out."""
    names = ("reconciled_at", "reconciled_fully_at", "reconciled_through")
    found = select(companies.c.company_id, *(companies.c[name] for name in names))
    ever = found.where(companies.c.reconciled_at.is_not(None))
    return {company_id: Reconciled(*times) for company_id, *times in connection.execute(ever)}


def mark_reconciled(connection: Connection, company_id: str, done: Reconciled) -> None:
    """Record that a company was compared, unless it was erased. None leaves a time as it is."""
    times = {f"reconciled_{name}": at for name, at in done._asdict().items() if at}
    mine = update(companies).where(companies.c.company_id == company_id)
    connection.execute(mine.values(times))
