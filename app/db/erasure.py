"""Erasure of a company: every row of every table that is about it, in small steps.

The tables are derived from the metadata: those with a company id and those that refer to a sync, so
a table that is added later is covered. Events are erased first, so that neither the projector nor a
rebuild, which lock the events that they apply, restores what was erased. Jobs have no foreign key
and are erased with their sync or message. Rows are locked in the order of all writers
(`sync_writer`): the company, its syncs, jobs, outgoing messages.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    Table,
    and_,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from app.db import jobs
from app.db.engine import Database
from app.db.tables import companies, metadata, outgoing_messages, syncs, webhook_events
from app.db.tables import jobs as job_table

SYNCS_PER_STEP = 50
ROWS_PER_STEP = 500

_TABLES = tuple(reversed(metadata.sorted_tables))
_OF_SYNC = tuple(
    table for table in _TABLES if any(key.column.table is syncs for key in table.foreign_keys)
)
_OF_COMPANY = tuple(
    table
    for table in _TABLES
    if "company_id" in table.c and table not in (webhook_events, syncs, companies)
)

STEPS: tuple[str, ...] = (
    webhook_events.name,
    syncs.name,
    *(table.name for table in _OF_COMPANY),
    job_table.name,
    companies.name,
)
"""The tables to erase from, in this order, each until nothing is left."""
TABLES: tuple[str, ...] = tuple(sorted({*STEPS, *(table.name for table in _OF_SYNC)}))
"""All tables in which a company may have left a trace."""


def is_known(connection: Connection, company_id: str) -> bool:
    """True when anything about this company is stored."""
    tables = (metadata.tables[name] for name in STEPS)
    anywhere = [exists().where(_is_about(connection, table, company_id)) for table in tables]
    return bool(connection.execute(select(or_(*anywhere))).scalar())


def erase(connection: Connection, step: str, company_id: str) -> Counter[str]:
    """Erase a few rows of a table of STEPS, and what depends on them; rows by table, or none."""
    if connection.dialect.name == "sqlite":
        # SQLite leaves deleted content in its file unless it is set to overwrite it.
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
    if step == syncs.name:
        return _erase_syncs(connection, company_id)
    table = metadata.tables[step]
    about = _is_about(connection, table, company_id)
    keys = list(table.primary_key)
    first: Select[Any] = select(*keys).where(about).order_by(*keys).limit(ROWS_PER_STEP)
    if table is outgoing_messages:
        return _erase_messages(connection, connection.execute(first).scalars().all())
    found = connection.execute(first.with_for_update()).all()
    if not found:
        return Counter()
    erase_these = delete(table).where(tuple_(*keys).in_([tuple(row) for row in found]))
    if table is companies:  # the row stays as the lock of a sync that was written meanwhile
        erase_these = erase_these.where(~exists().where(syncs.c.company_id == company_id))
    return +Counter({table.name: connection.execute(erase_these).rowcount})


def _erase_messages(connection: Connection, pks: Sequence[int]) -> Counter[str]:
    """The jobs first, as in every writer."""
    erased: Counter[str] = Counter()
    if pks:
        erased[job_table.name] = jobs.remove(connection, "message", pks)
        gone = delete(outgoing_messages).where(outgoing_messages.c.id.in_(pks))
        erased[outgoing_messages.name] = connection.execute(gone).rowcount
    return erased


def _erase_syncs(connection: Connection, company_id: str) -> Counter[str]:
    """Locks the company first, as every writer of syncs does."""
    mine = select(companies.c.company_id).where(companies.c.company_id == company_id)
    connection.execute(mine.with_for_update()).all()
    first = select(syncs.c.id).where(syncs.c.company_id == company_id).order_by(syncs.c.id)
    pks = connection.execute(first.limit(SYNCS_PER_STEP).with_for_update()).scalars().all()
    erased: Counter[str] = Counter()
    if not pks:
        return erased
    erased[job_table.name] = jobs.remove(connection, "fetch", pks)
    messages = select(outgoing_messages.c.id).where(outgoing_messages.c.sync_pk.in_(pks))
    erased += _erase_messages(connection, connection.execute(messages).scalars().all())
    for table in _OF_SYNC:
        (key,) = (key for key in table.foreign_keys if key.column.table is syncs)
        erased[table.name] += connection.execute(delete(table).where(key.parent.in_(pks))).rowcount
    erased[syncs.name] = connection.execute(delete(syncs).where(syncs.c.id.in_(pks))).rowcount
    return erased


def _is_about(connection: Connection, table: Table, company_id: str) -> ColumnElement[bool]:
    if table is job_table:
        return and_(job_table.c.kind == "fetch", job_table.c.group_key == company_id)
    about: ColumnElement[bool] = table.c.company_id == company_id
    return or_(about, _mentions(connection, company_id)) if table is webhook_events else about


def _mentions(connection: Connection, company_id: str) -> ColumnElement[bool]:
    """An event of no known company, pending or unreadable, whose body contains the id."""
    find = func.instr if connection.dialect.name == "sqlite" else func.pg_catalog.position
    quoted = literal(f'"{company_id}"'.encode(), LargeBinary)
    return and_(webhook_events.c.company_id.is_(None), find(webhook_events.c.body, quoted) > 0)


def truncate_wal(database: Database) -> None:
    """Empty SQLite's write-ahead log, which has old pages, as far as readers allow it."""
    if database.is_sqlite:
        with database.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")  # a checkpoint cannot run inside a transaction
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
