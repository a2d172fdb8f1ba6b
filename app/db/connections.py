"""Companies' connections to platforms: what was told last by Codat's clock, in whatever order.

A company may have several. The one that is shown is the one a sync writes into: the accounting
software's, unless it was deleted; else the one that was told last.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, ScalarSelect, case, func, or_, select

from app.db.engine import insert
from app.db.tables import companies, connections
from app.domain.models import Connection as Link
from app.domain.models import Delivery

DELETED = "Deleted"
_DELETES = "connection.deleted"
_KEY = ("company_id", "connection_id")


def merge_told(connection: Connection, news: Iterable[Delivery]) -> None:
    """Keep what connection events tell; Codat's example of a deletion still says `Linked`."""
    rows = []
    for delivery in news:
        event = delivery.event
        if event.reading == "ok" and event.company_id and event.connection:
            as_of = event.generated_at or delivery.received_at
            deleted = event.event == _DELETES
            rows += _rows(event.company_id, [event.connection], as_of, deleted=deleted)
    if rows:
        company_ids = sorted({row["company_id"] for row in rows})
        _hold(connection, company_ids)
        _merge(connection, rows)
        _show(connection, company_ids)


def merge_listed(
    connection: Connection, company_id: str, links: Sequence[Link], as_of: datetime
) -> None:
    """Keep a company's connections as Codat lists them; those it lists no more are deleted.

    An empty list changes nothing: it may only mean that Codat left them out.
    """
    rows = _rows(company_id, links, as_of, deleted=False)
    if not rows:
        return
    _hold(connection, [company_id])
    _merge(connection, rows)
    gone = (connections.c.company_id == company_id) & (connections.c.as_of < as_of)
    listed = connections.c.connection_id.in_([row["connection_id"] for row in rows])
    deleted = connections.update().where(gone, ~listed).values(state=DELETED, as_of=as_of)
    connection.execute(deleted)
    _show(connection, [company_id])


def _hold(connection: Connection, company_ids: Sequence[str]) -> None:
    """Know these companies and hold their rows: who changes their connections does so in turn."""
    known = insert(connection, companies).on_conflict_do_nothing()
    connection.execute(known, [{"company_id": each} for each in company_ids])
    mine = select(companies.c.company_id).where(companies.c.company_id.in_(company_ids))
    connection.execute(mine.order_by(companies.c.company_id).with_for_update())


def _rows(
    company_id: str, links: Iterable[Link], as_of: datetime, *, deleted: bool
) -> list[dict[str, Any]]:
    return [
        {
            "company_id": company_id,
            "connection_id": link.connection_id,
            "platform": link.platform_name,
            "source_type": link.source_type,
            "state": DELETED if deleted else link.status,
            "as_of": as_of,
        }
        for link in links
        if link.connection_id
    ]


def _merge(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """The state is the newest told; of two at one time the greater word, so that order is nothing.

    Platform and type never change for a connection: they are what anybody told.
    """
    statement = insert(connection, connections)
    told = statement.excluded
    same_time = (connections.c.as_of == told.as_of) & (connections.c.state < told.state)
    newer = or_(connections.c.as_of < told.as_of, same_time)
    changed: dict[str, Any] = {
        name: case((newer, told[name]), else_=connections.c[name]) for name in ("state", "as_of")
    }
    for name in ("platform", "source_type"):
        changed[name] = func.coalesce(connections.c[name], told[name])
    connection.execute(
        statement.on_conflict_do_update(index_elements=list(_KEY), set_=changed),
        sorted(rows, key=lambda row: tuple(row[name] for name in _KEY)),
    )


def _show(connection: Connection, company_ids: Sequence[str]) -> None:
    """Say at the company what is to be shown of its connections, so that lists need not look."""
    connection.execute(
        companies.update()
        .where(companies.c.company_id.in_(company_ids))
        .values(
            platform=_of_company(connections.c.platform),
            connection_state=_of_company(connections.c.state),
        )
    )


def _of_company(column: Column[str | None]) -> ScalarSelect[Any]:
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
