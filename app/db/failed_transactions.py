"""`failed_transactions`: one row per transaction that ever failed, with its latest failure.

Queries about causes read no other table. A row is recomputed from the rows of its transaction
whenever a sync that contains it is written; the caller holds the companies' rows
(`sync_writer.lock_companies`), so that two syncs of a company do not overwrite each other's
result. A row that names no transaction gets a key of sync and position; nothing resolves it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType

from sqlalchemy import Connection, bindparam, delete, select

from app.db.engine import chunked
from app.db.many_rows import Insert, Row, insert_many, is_any_of
from app.db.tables import failed_transactions, syncs, transactions
from app.domain.causes.classifier import UNCLASSIFIED
from app.domain.causes.fingerprint import fingerprint
from app.domain.transactions import Attempt, LatestFailure, latest_failure

TransactionKey = tuple[str, str]
"""Company id and transaction id."""

_ATTEMPT = select(
    syncs.c.company_id,
    transactions.c.transaction_id,
    syncs.c.occurred_at,
    syncs.c.id,
    syncs.c.sync_id,
    transactions.c.position,
    transactions.c.status,
    transactions.c.cause_key,
    transactions.c.fingerprint,
).join_from(transactions, syncs, syncs.c.id == transactions.c.sync_pk)
_KEY = ("company_id", "transaction_key")
_VALUES = (
    *("sync_pk", "position", "cause_key", "fingerprint"),
    *("first_failed_at", "last_failed_at", "resolved_by"),
)


def _or_replace(statement: Insert) -> Insert:
    values = {name: statement.excluded[name] for name in _VALUES}
    return statement.on_conflict_do_update(index_elements=list(_KEY), set_=values)


_DELETE = delete(failed_transactions).where(
    failed_transactions.c.company_id == bindparam("company"),
    failed_transactions.c.transaction_key == bindparam("key"),
)


@dataclass(frozen=True, slots=True)
class ResolvedTransaction:
    """A transaction whose latest failure a later sync has just been found to resolve."""

    company_id: str
    transaction_id: str
    resolved_by: str


def load(connection: Connection, keys: Collection[TransactionKey]) -> dict[TransactionKey, Row]:
    """The rows of these transactions; those that never failed have none."""
    if not keys:
        return {}
    company_ids, transaction_ids = map(set, zip(*keys, strict=True))
    found = connection.execute(
        select(failed_transactions).where(
            is_any_of(connection, failed_transactions.c.transaction_key, transaction_ids),
            is_any_of(connection, failed_transactions.c.company_id, company_ids),
        )
    ).mappings()
    rows = {(row["company_id"], row["transaction_id"]): dict(row) for row in found}
    return {key: row for key, row in rows.items() if key in keys}


def recompute(
    connection: Connection,
    keys: Set[TransactionKey],
    *,
    stored: Mapping[TransactionKey, Row] | None = None,
    latest: Mapping[TransactionKey, Sequence[Attempt]] = MappingProxyType({}),
) -> tuple[int, list[ResolvedTransaction]]:
    """Bring the rows of these transactions up to date; how many differed, and which are resolved.

    `stored` are their rows, if they are loaded already. `latest` has what the latest sync of the
    company did to some of them, where no other sync has changed and the stored row is not about
    this one: then their history need not be read.
    """
    before = load(connection, keys) if stored is None else stored
    failures = {
        key: latest_failure(attempts, _failure(before[key]) if key in before else None)
        for key, attempts in latest.items()
    }
    failures |= _latest_failures(connection, keys - latest.keys())
    after = _rows(failures)
    changed = _write(connection, before, after)
    resolved = [
        ResolvedTransaction(*key, row["resolved_by"])
        for key, row in sorted(after.items())
        if row["resolved_by"] and not (key in before and before[key]["resolved_by"])
    ]
    return changed, resolved


def is_current(connection: Connection, keys: Set[TransactionKey]) -> bool:
    """True when `recompute` would change nothing."""
    return load(connection, keys) == _rows(_latest_failures(connection, keys))


def _rows(failures: Mapping[TransactionKey, LatestFailure | None]) -> dict[TransactionKey, Row]:
    return {key: _row(*key, key[1], failure) for key, failure in failures.items() if failure}


def _latest_failures(
    connection: Connection, keys: Set[TransactionKey]
) -> dict[TransactionKey, LatestFailure | None]:
    return {key: latest_failure(attempts) for key, attempts in histories(connection, keys)}


def histories(
    connection: Connection, keys: Set[TransactionKey]
) -> Iterator[tuple[TransactionKey, list[Attempt]]]:
    """What all syncs of their companies did to these transactions, in any order.

    A few at a time, because their histories may be long. Other companies use the same transaction
    ids, so the company narrows it down, too.
    """
    for chunk in chunked(sorted(keys)):
        found: dict[TransactionKey, list[Attempt]] = {key: [] for key in chunk}
        company_ids, transaction_ids = map(set, zip(*chunk, strict=True))
        rows = connection.execute(
            _ATTEMPT.where(
                is_any_of(connection, syncs.c.company_id, company_ids),
                is_any_of(connection, transactions.c.transaction_id, transaction_ids),
            )
        )
        for company_id, transaction_id, *attempt in rows:
            attempts = found.get((company_id, transaction_id))
            if attempts is not None:
                attempts.append(Attempt(*attempt))
        yield from found.items()


def recompute_unnamed(connection: Connection, sync_pks: Collection[int]) -> int:
    """Bring these syncs' failures that name no transaction up to date; how many rows differed."""
    return _write(connection, *_unnamed(connection, sync_pks))


def is_unnamed_current(connection: Connection, sync_pks: Collection[int]) -> bool:
    """True when `recompute_unnamed` would change nothing."""
    stored, expected = _unnamed(connection, sync_pks)
    return stored == expected


def _unnamed(
    connection: Connection, sync_pks: Collection[int]
) -> tuple[dict[TransactionKey, Row], dict[TransactionKey, Row]]:
    """The rows of failures that name no transaction: as stored, and as they should be."""
    stored = connection.execute(
        select(failed_transactions).where(
            is_any_of(connection, failed_transactions.c.sync_pk, sync_pks),
            failed_transactions.c.transaction_id.is_(None),
        )
    ).mappings()
    attempts = connection.execute(
        _ATTEMPT.where(
            is_any_of(connection, transactions.c.sync_pk, sync_pks),
            # in a form for which no index is used: rows without an id may be many
            (transactions.c.transaction_id + "").is_(None),
            transactions.c.failed.is_(True),
        )
    )
    expected = {}
    for company_id, _, *columns in attempts:
        attempt = Attempt(*columns)
        key = f"{attempt.sync_id}\n{attempt.position}"  # no id contains a line break
        failure = LatestFailure(attempt, attempt.at, None)
        expected[company_id, key] = _row(company_id, key, None, failure)
    return {(row["company_id"], row["transaction_key"]): dict(row) for row in stored}, expected


def _row(company_id: str, key: str, transaction_id: str | None, failure: LatestFailure) -> Row:
    attempt = failure.attempt
    return {
        "company_id": company_id,
        "transaction_key": key,
        "transaction_id": transaction_id,
        "sync_pk": attempt.sync_pk,
        "position": attempt.position,
        # null only in damaged rows, which a rebuild has yet to repair
        "cause_key": attempt.cause_key or UNCLASSIFIED,
        "fingerprint": attempt.fingerprint or fingerprint(None),
        "first_failed_at": failure.first_failed_at,
        "last_failed_at": attempt.at,
        "resolved_by": failure.resolved_by,
    }


def _failure(row: Row) -> LatestFailure:
    """The inverse of `_row`, without the sync's id, which is not needed."""
    at, position = row["last_failed_at"], row["position"]
    attempt = Attempt(at, row["sync_pk"], "", position, None, row["cause_key"], row["fingerprint"])
    return LatestFailure(attempt, row["first_failed_at"], row["resolved_by"])


def _write(
    connection: Connection,
    before: Mapping[TransactionKey, Row],
    after: Mapping[TransactionKey, Row],
) -> int:
    new = [row for key, row in sorted(after.items()) if key not in before]
    changed = [
        row
        for key, row in sorted(after.items())
        if key in before and any(before[key][name] != row[name] for name in _VALUES)
    ]
    insert_many(connection, failed_transactions, new)  # ON CONFLICT takes SQLite four times as long
    insert_many(connection, failed_transactions, changed, _or_replace)
    gone = sorted(before.keys() - after.keys())
    if gone:
        connection.execute(_DELETE, [{"company": company, "key": key} for company, key in gone])
    return len(new) + len(changed) + len(gone)
