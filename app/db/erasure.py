"""Erasing a company: every row of every table that is about it.

Which tables those are is read off the tables themselves: the ones that name a company, and the ones
whose rows hang on a sync. So a table added later is covered without anybody thinking of it.
"""

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
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

from app.db.engine import Database
from app.db.tables import events, metadata, syncs
from app.db.tables_told import changes as _also  # noqa: F401  # its tables join the metadata

HANGING = tuple(
    table
    for table in reversed(metadata.sorted_tables)
    if any(key.column.table is syncs for key in table.foreign_keys)
)
NAMING = tuple(
    table
    for table in reversed(metadata.sorted_tables)
    if "company_id" in table.c and table is not syncs
)

TABLES = tuple(sorted({table.name for table in (syncs, *HANGING, *NAMING)}))
"""The names of all tables in which a company may have left a trace."""
NAMES = tuple(table.name for table in NAMING)
"""Those that name it, in the order in which they are to be erased after its syncs."""


def is_known(connection: Connection, company_id: str) -> bool:
    """True when anything of this company is kept."""
    anywhere = [exists().where(_of(connection, table, company_id)) for table in (syncs, *NAMING)]
    return bool(connection.execute(select(or_(*anywhere))).scalar())


def erase_syncs(connection: Connection, company_id: str, limit: int) -> Counter[str]:
    """Erase up to `limit` of its syncs with all that hangs on them; rows by table, or none."""
    _overwrite(connection)
    some = select(syncs.c.id).where(syncs.c.company_id == company_id).order_by(syncs.c.id)
    numbers = connection.execute(some.limit(limit).with_for_update()).scalars().all()
    gone: Counter[str] = Counter()
    if numbers:
        for table in HANGING:
            gone[table.name] += _delete(connection, table, _hangs_on(table, numbers))
        gone[syncs.name] += _delete(connection, syncs, syncs.c.id.in_(numbers))
    return gone


def erase_rows(connection: Connection, name: str, company_id: str, limit: int) -> int:
    """Erase up to `limit` rows of a table that name the company; returns how many."""
    _overwrite(connection)
    table = metadata.tables[name]
    keys = list(table.primary_key)
    some = select(*keys).where(_of(connection, table, company_id)).limit(limit)
    return _delete(connection, table, tuple_(*keys).in_(some))


def empty_log(database: Database) -> None:
    """Let SQLite's write-ahead log go, in which old pages live on; as far as readers allow it."""
    if database.is_sqlite:
        with database.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")  # a checkpoint cannot run inside a transaction
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _of(connection: Connection, table: Table, company_id: str) -> ColumnElement[bool]:
    mine: ColumnElement[bool] = table.c.company_id == company_id
    return or_(mine, _mentioned(connection, company_id)) if table is events else mine


def _mentioned(connection: Connection, company_id: str) -> ColumnElement[bool]:
    """An event that is nobody's, because it could not be read, and whose body has the id."""
    find = func.instr if connection.dialect.name == "sqlite" else func.pg_catalog.position
    named = find(events.c.body, literal(f'"{company_id}"'.encode(), LargeBinary)) > 0
    return and_(events.c.company_id.is_(None), named)


def _hangs_on(table: Table, numbers: Sequence[int]) -> ColumnElement[bool]:
    (key,) = (key for key in table.foreign_keys if key.column.table is syncs)
    return key.parent.in_(numbers)


def _delete(connection: Connection, table: Table, which: ColumnElement[bool]) -> int:
    return connection.execute(delete(table).where(which)).rowcount


def _overwrite(connection: Connection) -> None:
    """SQLite leaves what is deleted in its file unless told to write over it."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
