"""Files all failures of a company anew from its rows, and mends the sums by cause."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Connection,
    RowMapping,
    Select,
    SelectBase,
    Table,
    and_,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    union,
    union_all,
)

from app.db.bulk import write
from app.db.filed import Filing, refile, span
from app.db.filed_rows import NAMELESS
from app.db.keyed import adding
from app.db.slices import chunked
from app.db.tables import open_failures, syncs, transactions
from app.db.tables_counted import NO_CODE, OPEN_FAILURES
from app.db.tables_filed import AMOUNTS, filed_days, filed_failures, filed_spans, filed_totals
from app.db.tally import Key, added

_LOCK = 0x0C0DAA  # who mends what is summed up over all companies holds this advisory lock
BY_COMPANY = (filed_failures, filed_days, filed_spans)
AT_ONCE = 500
_ITS = filed_failures.c


@dataclass(frozen=True, slots=True)
class Part:
    """Some transactions and syncs of a company, by their ids."""

    transactions: Sequence[str] = ()
    syncs: Sequence[str] = ()


def parts_of(connection: Connection, company_id: str) -> list[Part]:
    """All of a company that failed, or is filed as if it had, some hundreds in each part."""
    own_ids = _transaction_ids(connection, company_id)
    sync_ids = _sync_ids(connection, company_id)
    if len(own_ids) + len(sync_ids) <= AT_ONCE:
        return [Part(own_ids, sync_ids)]
    return [
        *(Part(transactions=some) for some in chunked(own_ids, AT_ONCE)),
        *(Part(syncs=some) for some in chunked(sync_ids, AT_ONCE)),
    ]


def refile_part(part: Part, connection: Connection, company_id: str) -> int:
    """File a part of a company's failures anew; how many groups or counters were wrong.

    The caller holds the company's lock, as for `mend_sums`.
    """
    filing = Filing()
    touched = dict.fromkeys(((company_id, each) for each in part.transactions), True)
    refile(connection, touched, [(company_id, each) for each in part.syncs], filing)
    grown: Key = (company_id, None, OPEN_FAILURES, NO_CODE)
    write(connection, *filing.writes(), added({grown: filing.grown[company_id]}))
    span(connection, filing.groups)
    return len(filing.groups) + any(filing.grown.values())


def mend_sums(connection: Connection, company_id: str) -> int:
    """Make a company's sums what its filed failures add up to; how many were wrong."""
    wrong = _misspanned(connection, company_id)
    span(connection, wrong)
    days = select(filed_days).where(filed_days.c.company_id == company_id)
    return len(wrong) + _mend(connection, filed_days, _counted(company_id), days)


def mend_totals(connection: Connection) -> int:
    """Make the sums over all companies what those of each add up to; how many were wrong."""
    alone(connection)
    columns = [filed_days.c[column.name] for column in filed_totals.c]
    wrong = _mend(connection, filed_totals, select(*columns), select(filed_totals))
    for sums in (filed_days, filed_totals):
        _forget_nothing(connection, sums)
    return wrong


def alone(connection: Connection) -> None:
    """Wait for whoever mends: two who find the same difference would both add it."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def _forget_nothing(connection: Connection, sums: Table) -> None:
    """Delete the rows that count nothing, but for those that somebody is adding to."""
    nothing = select(*sums.primary_key).where(*(sums.c[name] == 0 for name in AMOUNTS))
    some = nothing.with_for_update(skip_locked=True).cte("empty")
    connection.execute(delete(sums).where(tuple_(*sums.primary_key).in_(select(some))))


def _counted(company_id: str) -> CompoundSelect[Any]:
    """What the rows of `filed_days` are to add up to, by message and by cause."""
    amounts = [_ITS[name] for name in AMOUNTS]
    by_message = select(_ITS.company_id, _ITS.cause, _ITS.fingerprint, _ITS.next_day, _ITS.day)
    by_cause = select(_ITS.company_id, _ITS.cause, literal(""), _ITS.cause_next_day, _ITS.day)
    mine = _ITS.company_id == company_id
    return union_all(
        by_message.add_columns(*amounts).where(mine),
        by_cause.add_columns(*amounts).where(mine, _ITS.cause_next_day.is_not(None)),
    )


def _transaction_ids(connection: Connection, company_id: str) -> Sequence[str]:
    """Those that failed, or are stored or filed as if they had."""
    mine = syncs.c.company_id == company_id
    failed = (
        select(transactions.c.transaction_id)
        .join_from(syncs, transactions, transactions.c.sync == syncs.c.id)
        .where(mine, syncs.c.failed > 0, transactions.c.failed.is_(True))
        .where(~NAMELESS)
    )
    stored = select(open_failures.c.transaction_id).where(open_failures.c.company_id == company_id)
    return connection.execute(union(failed, stored, _filed_as("t", company_id))).scalars().all()


def _sync_ids(connection: Connection, company_id: str) -> Sequence[str]:
    """Those that failed as a whole or have nameless failures, or are filed as if they had."""
    nameless = select(transactions.c.id).where(
        transactions.c.sync == syncs.c.id,
        transactions.c.failed.is_(True),
        NAMELESS,
    )
    failing = and_(syncs.c.failed > 0, nameless.exists())
    failed = select(syncs.c.sync_id).where(
        syncs.c.company_id == company_id, or_(syncs.c.cause.is_not(None), failing)
    )
    return connection.execute(union(failed, _filed_as("s", company_id))).scalars().all()


def _filed_as(kind: str, company_id: str) -> Select[Any]:
    its_kind, own_id = func.substr(_ITS.unit, 1, 1), func.substr(_ITS.unit, 2)
    return select(own_id).where(_ITS.company_id == company_id, its_kind == kind)


def _misspanned(connection: Connection, company_id: str) -> set[tuple[str, str, str]]:
    """The groups, and causes as a whole, whose first and last failure are not as filed."""
    times = (func.min(_ITS.first_at), func.max(_ITS.last_at))
    mine = _ITS.company_id == company_id
    by_message = select(_ITS.cause, _ITS.fingerprint, *times).where(mine)
    by_cause = select(_ITS.cause, literal("").label("fingerprint"), *times).where(mine)
    right = connection.execute(
        union_all(by_message.group_by(_ITS.cause, _ITS.fingerprint), by_cause.group_by(_ITS.cause))
    )
    stored = connection.execute(
        select(filed_spans.c.cause, filed_spans.c.fingerprint)
        .add_columns(filed_spans.c.first_at, filed_spans.c.last_at)
        .where(filed_spans.c.company_id == company_id)
    )
    wrong = {tuple(row) for row in right} ^ {tuple(row) for row in stored}
    return {(company_id, cause, fingerprint) for cause, fingerprint, *_ in wrong}


def _mend(connection: Connection, table: Table, right: SelectBase, stored: SelectBase) -> int:
    """Add to a table's sums what they are less than they should be; how many were wrong.

    One statement finds it, so whatever else is added meanwhile is on both sides or on neither.
    """
    names = [str(column.name) for column in table.c]  # plain ones, as JSON wants them
    rights, storeds = right.subquery("rights").c, stored.subquery("storeds").c
    both = union_all(
        select(*(each.label(name) for each, name in zip(rights, names, strict=True))),
        select(*(-storeds[name] if name in AMOUNTS else storeds[name] for name in names)),
    ).subquery("compared")
    keys = [both.c[key.name] for key in table.primary_key]
    less = [func.sum(both.c[name]) for name in AMOUNTS]
    differences = select(*keys, *less).group_by(*keys).having(or_(*(each != 0 for each in less)))
    # sorted here, as who works off does: the database may sort texts in another way
    rows = sorted(_numbers(row) for row in connection.execute(differences).mappings())
    write(connection, adding(table, [dict(zip(names, row, strict=True)) for row in rows]))
    return len(rows)


def _numbers(row: RowMapping) -> list[Any]:
    """PostgreSQL adds up numbers to decimals."""
    return [each if isinstance(each, str) else int(each) for each in row.values()]
