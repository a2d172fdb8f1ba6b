"""Finds stored causes that were decided by other rules than the current ones, and updates them.

Each cause is stored with the version of the rules. After a release, or after a team has changed its
rules, rows with another version are reclassified, in small steps.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, select, update

from app.db import change_feed, failed_transactions
from app.db.change_feed import Change
from app.db.engine import classifier_of
from app.db.many_rows import update_many
from app.db.sync_rows import CAUSE_COLUMNS, ContentValues, StoredSync, sync_row
from app.db.sync_writer import load_sync, lock_companies
from app.db.tables import syncs, transactions

MAX_SYNCS = 20
MAX_ROWS = 5000


class OutdatedSyncs(NamedTuple):
    """Syncs of one company with outdated causes, to be reclassified in one transaction."""

    company_id: str
    sync_pks: list[int]


def list_outdated(connection: Connection, limit: int) -> list[OutdatedSyncs]:
    """Syncs with outdated causes, their own or of transactions.

    Looks at up to `limit` transactions and `limit` syncs.
    """
    version = classifier_of(connection).version
    sync = select(syncs.c.company_id, syncs.c.id, syncs.c.failed)
    statements = []
    for differs in _differs(transactions, version):
        rows = select(transactions.c.sync_pk).where(differs)
        ordered = rows.order_by(transactions.c.rules_version, transactions.c.id)
        first = ordered.limit(limit).subquery()
        statements.append(sync.join_from(first, syncs, syncs.c.id == first.c.sync_pk).distinct())
    statements += [
        sync.where(syncs.c.cause_key.is_not(None), differs).limit(limit)
        for differs in _differs(syncs, version)
    ]
    outdated = {tuple(row) for statement in statements for row in connection.execute(statement)}
    return list(_in_steps(sorted(outdated)))


def _differs(table: Table, version: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Rows of another version, as two ranges of an index: "not equal" would be a scan."""
    return table.c.rules_version < version, table.c.rules_version > version


def _in_steps(outdated: Iterable[tuple[str, int, int | None]]) -> Iterator[OutdatedSyncs]:
    """Syncs of one company each: at most MAX_SYNCS, and about MAX_ROWS failed transactions."""
    step, rows = OutdatedSyncs("", []), 0
    for company_id, sync_pk, failed in outdated:
        rows += failed or 0
        is_full = len(step.sync_pks) == MAX_SYNCS or rows > MAX_ROWS
        if step.sync_pks and (is_full or company_id != step.company_id):
            yield step
            step, rows = OutdatedSyncs(company_id, []), failed or 0
        step = OutdatedSyncs(company_id, [*step.sync_pks, sync_pk])
    if step.sync_pks:
        yield step


def reclassify(
    connection: Connection, company_id: str, sync_pks: Collection[int], *, now: datetime
) -> int:
    """Reclassify these syncs of one company and their transactions.

    Returns how many have another visible cause now; only their `updated_at` changes.
    """
    lock_companies(connection, [company_id], insert_missing=False)
    stored = {}
    for sync_pk in sorted(sync_pks):
        found = load_sync(connection, sync_pk)
        if found is not None:
            stored[sync_pk] = found
    visible = _reclassify_transactions(connection, stored)
    changes: list[Change] = []
    causes = select(syncs.c.id, syncs.c.cause_key).where(syncs.c.id.in_(stored))
    for pk, cause_before in connection.execute(causes).all():
        sync, updated_at = stored[pk].sync, stored[pk].updated_at
        row = sync_row(sync, updated_at=now, classifier=classifier_of(connection))
        if row["cause_key"] != cause_before:
            changes.append(change_feed.sync_change(row, now))
            visible.add(pk)
        values = {name: row[name] for name in CAUSE_COLUMNS}
        values["updated_at"] = now if pk in visible else updated_at
        connection.execute(update(syncs).where(syncs.c.id == pk).values(values))
    change_feed.append(connection, changes)
    return len(visible)


def _reclassify_transactions(connection: Connection, stored: Mapping[int, StoredSync]) -> set[int]:
    """Returns the syncs in which the cause of a failed transaction has changed."""
    classifier = classifier_of(connection)
    values = {pk: ContentValues(found.sync.status_code, classifier) for pk, found in stored.items()}
    of_syncs = select(transactions).where(transactions.c.sync_pk.in_(stored))
    failed = connection.execute(of_syncs.where(transactions.c.failed.is_(True))).all()
    visible, rows, named = set(), [], set()
    for row in failed:
        content = values[row.sync_pk][row.status, row.message, row.integration_type]
        rows.append({"id": row.id, **{name: content[name] for name in CAUSE_COLUMNS}})
        if row.cause_key != content["cause_key"]:
            visible.add(row.sync_pk)
        if row.transaction_id is not None:
            named.add((stored[row.sync_pk].sync.company_id, row.transaction_id))
    update_many(connection, transactions, rows)
    failed_transactions.recompute(connection, named)
    failed_transactions.recompute_unnamed(connection, stored)
    return visible
