"""The transaction lists of syncs: read, and replaced as a whole with everything that follows.

What follows: a change in the feed for each transaction whose rows differ, and its latest failure in
`failed_transactions`. Only `sync_writer` calls `write_lists`: the syncs' companies are locked.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

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

    def failed_by_key(self) -> dict[TransactionKey, bool]:
        """The transactions that it names, before or now, and whether one of their rows failed."""
        found: dict[TransactionKey, bool] = {}
        for transaction in (*self.old, *self.new):
            if transaction.transaction_id is not None:
                key = self.sync.company_id, transaction.transaction_id
                found[key] = found.get(key, False) or is_failed(transaction.status)
        return found

    def is_subject_of(self, failure: Mapping[str, Any]) -> bool:
        """True when this row of `failed_transactions` is about this sync's rows."""
        return bool(failure["sync_pk"] == self.pk or failure["resolved_by"] == self.sync.sync_id)

    @property
    def has_unnamed_failure(self) -> bool:
        """True when a failed row names no transaction, before or now."""
        return any(
            transaction.transaction_id is None and is_failed(transaction.status)
            for transaction in (*self.old, *self.new)
        )


def load_lists(connection: Connection, sync_pks: Sequence[int]) -> dict[int, list[Transaction]]:
    """The transaction lists of these syncs, in Codat's order."""
    found: dict[int, list[Transaction]] = {}
    if not sync_pks:
        return found
    rows = connection.execute(
        select(transactions.c.sync_pk, *(transactions.c[name] for name in Transaction._fields))
        .where(is_any_of(connection, transactions.c.sync_pk, sync_pks))
        .order_by(transactions.c.sync_pk, transactions.c.position)
    )
    for pk, *columns in rows:
        found.setdefault(pk, []).append(Transaction(*columns))
    return found


def write_lists(
    connection: Connection, lists: Sequence[ListWrite], now: datetime
) -> tuple[list[Change], list[ResolvedTransaction]]:
    """Replace the old lists by the new ones, and update the failures.

    Returns the changes of single transactions, and the transactions that are resolved now.
    """
    if not lists:
        return [], []
    classifier = classifier_of(connection)
    values = {write.pk: ContentValues(write.sync.status_code, classifier) for write in lists}
    replaced = [write for write in lists if write.is_replaced]
    if emptied := [write.pk for write in replaced if write.old]:
        of_these = is_any_of(connection, transactions.c.sync_pk, emptied)
        connection.execute(delete(transactions).where(of_these))
    rows = (
        row for write in replaced for row in transaction_rows(write.pk, write.new, values[write.pk])
    )
    insert_many(connection, transactions, rows)
    changes = [
        change for write in replaced for change in _list_changes(write, values[write.pk], now)
    ]
    if unnamed := [write.pk for write in lists if write.has_unnamed_failure]:
        failed_transactions.recompute_unnamed(connection, unnamed)
    return changes, _follow_failures(connection, lists, values)


def _list_changes(write: ListWrite, values: ContentValues, now: datetime) -> Iterator[Change]:
    """One change for each transaction whose rows differ, with all the rows that it has now."""
    sync, old, new = write.sync, _content_by_id(write.old), _content_by_id(write.new)
    payloads: dict[tuple[Content, ...], str] = {}
    for transaction_id in old | new:
        contents = new.get(transaction_id, ())
        if contents == old.get(transaction_id, ()):
            continue
        payload = payloads.get(contents)
        if payload is None:
            payload = change_feed.transaction_payload(map(values.__getitem__, contents))
            payloads[contents] = payload
        yield Change("transaction", sync.company_id, sync.sync_id, transaction_id, now, payload)


def _content_by_id(listed: Sequence[Transaction]) -> dict[str | None, tuple[Content, ...]]:
    found: dict[str | None, list[Content]] = {}
    for transaction in listed:
        found.setdefault(transaction[0], []).append(transaction[1:])
    return {transaction_id: tuple(contents) for transaction_id, contents in found.items()}


def _follow_failures(
    connection: Connection, lists: Sequence[ListWrite], values: Mapping[int, ContentValues]
) -> list[ResolvedTransaction]:
    """Bring the latest failures of all these transactions up to date.

    One that did not fail here and has no failure stored never failed.
    """
    named = [write.failed_by_key() for write in lists]
    failed = {key for keys in named for key, has_failed in keys.items() if has_failed}
    occurrences = Counter(chain.from_iterable(named))
    stored = failed_transactions.load(connection, occurrences.keys())
    wanted = failed | stored.keys()
    newest = _newest_of_companies(connection, lists)
    latest: dict[TransactionKey, list[Attempt]] = {}
    for write, keys in zip(lists, named, strict=True):
        if write.pk in newest:
            only_here = {
                key
                for key in keys.keys() & wanted
                if occurrences[key] == 1
                and not (key in stored and write.is_subject_of(stored[key]))
            }
            latest |= _attempts(write, values[write.pk], only_here)
    return failed_transactions.recompute(connection, wanted, stored=stored, latest=latest)[1]


def _newest_of_companies(connection: Connection, lists: Sequence[ListWrite]) -> set[int]:
    """The keys of those that are, and were before, the latest sync of their company."""
    later = syncs.alias("later")
    newest = (
        select(later.c.id)
        .where(later.c.company_id == syncs.c.company_id)
        .order_by(later.c.occurred_at.desc(), later.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    unmoved = [write.pk for write in lists if not write.is_moved]
    these = select(syncs.c.id).where(
        is_any_of(connection, syncs.c.id, unmoved), syncs.c.id == newest
    )
    return set(connection.execute(these).scalars())


def _attempts(
    write: ListWrite, values: ContentValues, keys: Set[TransactionKey]
) -> dict[TransactionKey, list[Attempt]]:
    """What a sync did to these transactions; nothing to those that it no longer names."""
    pk, sync, at = write.pk, write.sync, write.sync.occurred_at
    if at is None:
        return {}
    found: dict[TransactionKey, list[Attempt]] = {key: [] for key in keys}
    for position, transaction in enumerate(write.new):
        attempts = found.get((sync.company_id, transaction.transaction_id or ""))
        if attempts is not None:
            row = values[transaction[1:]]
            cause = row["cause_key"], row["fingerprint"]
            attempts.append(Attempt(at, pk, sync.sync_id, position, transaction.status, *cause))
    return found
