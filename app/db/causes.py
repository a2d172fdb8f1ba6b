"""Causes kept under other rules than today's are decided anew, in small steps.

Each kept cause has the version of the rules that said it. A team that changes its rules, or a new
release that knows more, thereby makes the rows of other versions due; an index finds them.
"""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Table,
    bindparam,
    exists,
    null,
    select,
    update,
)

from app.db.bulk import write
from app.db.engine import rules_of
from app.db.journal import Entry
from app.db.sync_rows import to_sync, why_as_a_whole
from app.db.tables import syncs, transactions
from app.db.why import why
from app.domain.causes.classifier import Rules
from app.domain.models import Item

_ITEMS = select(transactions, syncs.c.company_id, syncs.c.sync_id, syncs.c.status_code).join(
    syncs, syncs.c.id == transactions.c.sync
)
_SYNCS = select(syncs, null().label("transaction_id"))


def is_outdated(connection: Connection) -> bool:
    """True when a cause is kept that other rules have said; a read, to spare the write."""
    version = rules_of(connection).version
    ways = [way for table in (transactions, syncs) for way in _otherwise(table, version)]
    return any(connection.execute(select(exists().where(way))).scalar() for way in ways)


def decide_anew(connection: Connection, limit: int) -> int:
    """Ask today's rules about at most so many transactions and syncs; returns how many it were.

    Rows that somebody else is writing are left to them: so this never waits, and cannot deadlock.
    """
    rules = rules_of(connection)
    done, entry = 0, Entry()
    for table, wanted in ((transactions, _ITEMS), (syncs, _SYNCS)):
        for way in _otherwise(table, rules.version):
            rows = _take(connection, wanted.where(way), table, limit - done)
            _write(connection, table, [_decided(rules, table, row) for row in rows])
            for row in rows:
                entry.decided_anew(row["company_id"], row["sync_id"], row["transaction_id"])
            done += len(rows)
    write(connection, entry.written())
    return done


def _otherwise(table: Table, version: str) -> list[ColumnElement[bool]]:
    """The rows of another version: two ranges of an index, where "not equal" would be a scan."""
    return [table.c.cause_rules < version, table.c.cause_rules > version]


def _take(
    connection: Connection, wanted: Select[Any], table: Table, limit: int
) -> list[RowMapping]:
    if limit <= 0:
        return []
    statement = (
        wanted.order_by(table.c.cause_rules, table.c.id)
        .limit(limit)
        .with_for_update(of=table, skip_locked=True, key_share=True)
    )
    return list(connection.execute(statement).mappings())


def _decided(rules: Rules, table: Table, row: RowMapping) -> dict[str, Any]:
    if table is syncs:
        return {"row_id": row["id"]} | why_as_a_whole(rules, to_sync(row))
    item = Item(row["transaction_id"], row["status"], row["message"], row["integration_type"])
    return {"row_id": row["id"]} | why(rules, item, status_code=row["status_code"])


def _write(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(update(table).where(table.c.id == bindparam("row_id")), rows)
