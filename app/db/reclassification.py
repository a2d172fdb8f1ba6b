"""Stored causes that other rules than today's have decided: found, and decided again.

Each cause is stored with the version of the rules. After a release, or after a team has changed its
rules, rows with another version are decided again, in small steps.
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, select, update

from app.db import change_feed, failed_transactions
from app.db.change_feed import Change
from app.db.engine import classifier_of
from app.db.many_rows import update_many
from app.db.sync_rows import ContentValues, StoredSync, sync_row
from app.db.sync_writer import load_sync, lock_companies
from app.db.tables import syncs, transactions
from app.db.transaction_lists import recompute_unnamed

MAX_SYNCS = 20
MAX_ROWS = 5000
_CAUSE_COLUMNS = ("cause_key", "fingerprint", "rules_version")


class OutdatedSyncs(NamedTuple):
    """Some syncs of one company with outdated causes, to be reclassified in one transaction."""

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
        some = ordered.limit(limit).subquery()
        statements.append(sync.join_from(some, syncs, syncs.c.id == some.c.sync_pk).distinct())
    statements += [
        sync.where(syncs.c.cause_key.is_not(None), differs).limit(limit)
        for differs in _differs(syncs, version)
    ]
    outdated = {tuple(row) for each in statements for row in connection.execute(each)}
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
    """Work out again why these syncs of one company, and their transactions, failed.

    Returns in how many a cause that a caller sees has changed; only their `updated_at` moves.
    """
    lock_companies(connection, [company_id])
    changes: list[Change] = []
    changed = 0
    for sync_pk in sorted(sync_pks):
        stored = load_sync(connection, sync_pk)
        if stored is not None:
            changed += _reclassify_sync(connection, stored, now, changes)
    change_feed.append(connection, changes)
    return changed


def _reclassify_sync(
    connection: Connection, stored: StoredSync, now: datetime, changes: list[Change]
) -> bool:
    sync = stored.sync
    row = sync_row(sync, updated_at=now, classifier=classifier_of(connection))
    cause_before = select(syncs.c.cause_key).where(syncs.c.id == stored.pk)
    is_changed = connection.execute(cause_before).scalar() != row["cause_key"]
    is_visible = _reclassify_transactions(connection, stored) or is_changed
    values = {name: row[name] for name in _CAUSE_COLUMNS}
    if is_visible:
        values["updated_at"] = now
    connection.execute(update(syncs).where(syncs.c.id == stored.pk).values(values))
    if is_changed:
        changes.append(change_feed.sync_change(row, now))
    return is_visible


def _reclassify_transactions(connection: Connection, stored: StoredSync) -> bool:
    """True when the cause of a failed transaction has changed."""
    of_sync = select(transactions).where(transactions.c.sync_pk == stored.pk)
    failed = connection.execute(of_sync.where(transactions.c.failed.is_(True))).all()
    values = ContentValues(stored.sync.status_code, classifier_of(connection))
    new = [
        {"id": row.id}
        | {
            name: values[row.status, row.message, row.integration_type][name]
            for name in _CAUSE_COLUMNS
        }
        for row in failed
    ]
    update_many(connection, transactions, new)
    ids = {row.transaction_id for row in failed}
    named = {(stored.sync.company_id, each) for each in ids if each is not None}
    failed_transactions.recompute(connection, named)
    if None in ids:
        recompute_unnamed(connection, stored.pk, stored.sync)
    return any(
        row.cause_key != causes["cause_key"] for row, causes in zip(failed, new, strict=True)
    )
