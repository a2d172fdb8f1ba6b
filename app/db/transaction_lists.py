"""The transaction lists of syncs: read, and replaced as a whole with everything that follows.

What follows: a change in the feed for each transaction whose rows differ, and its latest failure in
`failed_transactions`. Only `sync_writer` calls `write_lists`: the syncs' companies are locked.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select

from app.db import change_feed, failed_transactions
from app.db.change_feed import Change
from app.db.engine import classifier_of
from app.db.failed_transactions import ResolvedTransaction, TransactionKey
from app.db.many_rows import insert_many, is_any_of
from app.db.sync_rows import Content, ContentValues, transaction_rows
from app.db.tables import syncs, transactions
from app.domain.models import Transaction
from app.domain.sync_state import Sync
from app.domain.transactions import Attempt, is_failed

_CONTENT = ("integration_type", "status", "message", "failed", "correlation_id")
"""What the change feed has of a row."""


@dataclass(frozen=True, slots=True)
class ListWrite:
    """The transaction list of one sync, before and after; `sync` is what the sync is now.

    `is_replaced`: its rows must be written. `is_moved`: the time of the sync is another one, so it
    may now be before or after other syncs.
    """

    pk: int
    sync: Sync
    old: Sequence[Transaction]
    new: Sequence[Transaction]
    is_replaced: bool
    is_moved: bool

    def named(self) -> Iterator[tuple[TransactionKey, bool]]:
        """The transactions that it names, and whether they failed; some more than once."""
        for each in (*self.old, *self.new):
            if each.transaction_id is not None:
                yield (self.sync.company_id, each.transaction_id), is_failed(each.status)

    def is_subject_of(self, failure: Mapping[str, Any]) -> bool:
        """True when this row of `failed_transactions` is about this sync's rows."""
        return bool(failure["sync_pk"] == self.pk or failure["resolved_by"] == self.sync.sync_id)

    @property
    def has_unnamed_failure(self) -> bool:
        """True when a failed row names no transaction."""
        rows = (*self.old, *self.new)
        return any(each.transaction_id is None and is_failed(each.status) for each in rows)


def load_lists(connection: Connection, sync_pks: Sequence[int]) -> dict[int, list[Transaction]]:
    """The transaction lists of these syncs, in Codat's order."""
    found: dict[int, list[Transaction]] = {}
    columns = [transactions.c[name] for name in Transaction._fields]
    if not sync_pks:
        return found
    rows = connection.execute(
        select(transactions.c.sync_pk, *columns)
        .where(is_any_of(connection, transactions.c.sync_pk, sync_pks))
        .order_by(transactions.c.sync_pk, transactions.c.position)
    )
    for pk, *row in rows:
        found.setdefault(pk, []).append(Transaction(*row))
    return found


def load_transactions(connection: Connection, sync_pk: int) -> list[Transaction]:
    """A sync's transaction list, in Codat's order."""
    return load_lists(connection, [sync_pk]).get(sync_pk, [])


def write_lists(
    connection: Connection, lists: Sequence[ListWrite], now: datetime
) -> tuple[list[Change], list[ResolvedTransaction]]:
    """Put the new lists in place of the old ones, and follow what that means for failures.

    Returns the changes of single transactions, and the transactions that are resolved now.
    """
    if not lists:
        return [], []
    classifier = classifier_of(connection)
    values = {each.pk: ContentValues(each.sync.status_code, classifier) for each in lists}
    replaced = [each for each in lists if each.is_replaced]
    if emptied := [each.pk for each in replaced if each.old]:
        of_these = is_any_of(connection, transactions.c.sync_pk, emptied)
        connection.execute(delete(transactions).where(of_these))
    rows = (
        row for each in replaced for row in transaction_rows(each.pk, each.new, values[each.pk])
    )
    insert_many(connection, transactions, rows)
    changes = [change for each in replaced for change in _list_changes(each, values[each.pk], now)]
    for each in lists:
        if each.has_unnamed_failure:
            recompute_unnamed(connection, each.pk, each.sync)
    return changes, _follow_failures(connection, lists, values)


def _list_changes(each: ListWrite, values: ContentValues, now: datetime) -> Iterator[Change]:
    """One change for each transaction whose rows differ, with all the rows that it has now."""
    old, new = _content_by_id(each.old), _content_by_id(each.new)
    json: dict[Content, orjson.Fragment] = {}
    for transaction_id in old | new:
        contents = new.get(transaction_id, [])
        if contents == old.get(transaction_id, []):
            continue
        for content in contents:
            if content not in json:
                row = values[content]
                json[content] = orjson.Fragment(orjson.dumps({n: row[n] for n in _CONTENT}))
        payload = change_feed.transaction_payload([json[content] for content in contents])
        sync = each.sync
        yield Change("transaction", sync.company_id, sync.sync_id, transaction_id, now, payload)


def _content_by_id(listed: Sequence[Transaction]) -> dict[str | None, list[Content]]:
    found: dict[str | None, list[Content]] = {}
    for transaction in listed:
        found.setdefault(transaction[0], []).append(transaction[1:])
    return found


def _follow_failures(
    connection: Connection, lists: Sequence[ListWrite], values: Mapping[int, ContentValues]
) -> list[ResolvedTransaction]:
    """Bring the latest failures of all these transactions up to date.

    One that did not fail here and has no failure stored never failed.
    """
    failed: set[TransactionKey] = set()
    listed_in: dict[TransactionKey, ListWrite] = {}
    elsewhere: set[TransactionKey] = set()
    for each in lists:
        for key, has_failed in each.named():
            if has_failed:
                failed.add(key)
            if listed_in.setdefault(key, each) is not each:
                elsewhere.add(key)
    stored = failed_transactions.load(connection, listed_in.keys())
    wanted = failed | stored.keys()
    latest: dict[TransactionKey, list[Attempt]] = {}
    for each in _newest_of_companies(connection, lists):
        only_here = {
            key
            for key, _ in each.named()
            if key in wanted
            and key not in elsewhere
            and not (key in stored and each.is_subject_of(stored[key]))
        }
        latest |= _attempts(each, values[each.pk], only_here)
    return failed_transactions.recompute(connection, wanted, stored=stored, latest=latest).resolved


def _newest_of_companies(connection: Connection, lists: Sequence[ListWrite]) -> list[ListWrite]:
    """Those that are, and were before, the latest sync of their company."""
    later = syncs.alias("later")
    newest = (
        select(later.c.id)
        .where(later.c.company_id == syncs.c.company_id)
        .order_by(later.c.occurred_at.desc(), later.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    unmoved = [each.pk for each in lists if not each.is_moved]
    these = select(syncs.c.id).where(
        is_any_of(connection, syncs.c.id, unmoved), syncs.c.id == newest
    )
    pks = set(connection.execute(these).scalars())
    return [each for each in lists if each.pk in pks]


def _attempts(
    each: ListWrite, values: ContentValues, keys: Set[TransactionKey]
) -> dict[TransactionKey, list[Attempt]]:
    """What a sync did to these transactions; nothing to those that it no longer names."""
    sync, at = each.sync, each.sync.occurred_at
    if at is None:
        return {}
    found: dict[TransactionKey, list[Attempt]] = {key: [] for key in keys}
    for position, transaction in enumerate(each.new):
        attempts = found.get((sync.company_id, transaction.transaction_id or ""))
        if attempts is not None:
            row = values[transaction[1:]]
            attempts.append(
                Attempt(
                    at,
                    each.pk,
                    sync.sync_id,
                    position,
                    transaction.status,
                    row["cause_key"],
                    row["fingerprint"],
                )
            )
    return found


def recompute_unnamed(connection: Connection, pk: int, sync: Sync) -> int:
    """Work out again the failures of a sync that name no transaction; returns how many differed."""
    rows = connection.execute(
        select(transactions).where(
            transactions.c.sync_pk == pk,
            transactions.c.transaction_id.is_(None),
            transactions.c.failed.is_(True),
        )
    )
    at = sync.occurred_at
    attempts = [
        Attempt(at, pk, sync.sync_id, row.position, row.status, row.cause_key, row.fingerprint)
        for row in rows
        if at is not None
    ]
    return failed_transactions.recompute_unnamed(connection, sync.company_id, pk, attempts)
