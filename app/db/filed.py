"""Failures filed by cause: which transactions failed of what and are open, and their sums.

Whoever keeps news says which transactions and syncs it touched. When that is worked off, what is
filed of them is compared with what their rows say now, and the difference is written and counted
(`tables_filed`). So it does not matter in which order, or how often, something is touched.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Select, Text, column, func, select, table

from app.db.bulk import Rows, Write, given, insertion, sent, write
from app.db.filed_rows import (
    Name,
    Own,
    asking,
    failing_syncs,
    filed_of,
    fits,
    histories,
    known,
    unit_of,
)
from app.db.keyed import adding, removing, replacing
from app.db.tables import open_failures
from app.db.tables_filed import AMOUNTS, filed_days, filed_failures, filed_spans, filed_totals
from app.domain.failing import Filed, judged

Group = tuple[str, str, str]
"""Company, cause, fingerprint."""

_NAME = ("company_id", "unit", "cause", "fingerprint", "day")
_GROUP = ("company_id", "cause", "fingerprint")
_GROUPS = table("groups", *(column(name, Text) for name in _GROUP))


@dataclass(slots=True)
class Filing:
    """What was filed otherwise, still to be added to the sums."""

    grown: Counter[str] = field(default_factory=Counter)
    sums: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    groups: set[Group] = field(default_factory=set)

    def count(self, name: Name, filed: Filed, sign: int) -> None:
        """Count a failure that is filed so now (1), or was (-1)."""
        company_id, _, cause, fingerprint, day = name
        amounts = (filed.transactions, filed.open, filed.syncs)
        self._add((company_id, cause, fingerprint, filed.next_day, day), amounts, sign)
        if filed.cause_next_day is not None:
            self._add((company_id, cause, "", filed.cause_next_day, day), amounts, sign)
        self.groups.add((company_id, cause, fingerprint))

    def _add(self, key: tuple[str, ...], amounts: Sequence[int], sign: int) -> None:
        sums = self.sums.setdefault(key, [0] * len(AMOUNTS))
        sums[:] = (one + sign * other for one, other in zip(sums, amounts, strict=True))

    def writes(self) -> tuple[Write, Write]:
        """To add this to the sums of each company, and of all."""
        of_all: dict[tuple[str, ...], list[int]] = {}
        for (_, *group), sums in self.sums.items():
            total = of_all.setdefault(tuple(group), [0] * len(AMOUNTS))
            total[:] = map(sum, zip(total, sums, strict=True))
        names = ("cause", "fingerprint", "next_day", "day")
        return (
            adding(filed_days, _summed(("company_id", *names), self.sums)),
            adding(filed_totals, _summed(names, of_all)),
        )


def _summed(names: tuple[str, ...], sums: Mapping[tuple[str, ...], list[int]]) -> Rows:
    """In one order for all, so that two who add at once wait for each other and never for ever."""
    return [
        dict(zip(names + AMOUNTS, (*key, *amounts), strict=True))
        for key, amounts in sorted(sums.items())
        if any(amounts)
    ]


def refile(
    connection: Connection,
    touched: Mapping[Own, bool],
    touched_syncs: Collection[Own],
    filing: Filing,
) -> None:
    """File these transactions and syncs as their rows say, and note in `filing` what that changed.

    With a transaction comes whether it may have become open, or failed of something else; without
    that it can only have been cured. The caller holds the companies' locks, and counts (`writes`,
    then `span`) before it ends its transaction.
    """
    stored, filed = known(connection, touched)
    doubtful = {own for own, may_open in touched.items() if may_open} | stored | filed
    units = {unit_of("t", own) for own in filed} | {unit_of("s", own) for own in touched_syncs}
    before = filed_of(connection, units)
    after = failing_syncs(connection, [*filter(fits, touched_syncs)])
    still: set[Own] = set()
    for own, history in histories(connection, doubtful):
        is_open, failures = judged(history)
        if is_open:
            still.add(own)
        if fits(own):
            after |= {(*unit_of("t", own), *why): each for why, each in failures.items()}
    _compare(before, after, filing)
    filing.grown.update(company_id for company_id, _ in still)
    filing.grown.subtract(company_id for company_id, _ in stored)
    write(connection, *_opened(stored, still), *_filed_anew(before, after))


def _compare(before: Mapping[Name, Filed], after: Mapping[Name, Filed], filing: Filing) -> None:
    for name in before.keys() | after.keys():
        if before.get(name) != after.get(name):
            if name in before:
                filing.count(name, before[name], -1)
            if name in after:
                filing.count(name, after[name], 1)


def _filed_anew(before: Mapping[Name, Filed], after: Mapping[Name, Filed]) -> tuple[Write, Write]:
    new = [
        dict(zip(_NAME, name, strict=True)) | each._asdict()
        for name, each in after.items()
        if before.get(name) != each
    ]
    gone = [dict(zip(_NAME, name, strict=True)) for name in before if name not in after]
    return replacing(filed_failures, new), removing(filed_failures, gone)


def _opened(stored: set[Own], still: set[Own]) -> tuple[Write, Write]:
    return (
        insertion(open_failures, _as_transactions(still - stored)),
        removing(open_failures, _as_transactions(stored - still)),
    )


def _as_transactions(some: Iterable[Own]) -> Rows:
    return [{"company_id": company, "transaction_id": own_id} for company, own_id in sorted(some)]


def span(connection: Connection, groups: Collection[Group]) -> None:
    """Write down anew when the failures of these groups, and of their causes, began and ended."""
    wholes = {(company_id, cause, "") for company_id, cause, _ in groups}
    for some, statement in ((groups, _spanning), (wholes, _spanning_wholes)):
        found = sent(connection, asking(_GROUPS, some, statement)) if some else []
        names = (*_GROUP, "first_at", "last_at")
        there = [dict(zip(names, row, strict=True)) for row in found if row[-1] is not None]
        gone = [dict(zip(_GROUP, row[:3], strict=True)) for row in found if row[-1] is None]
        write(connection, replacing(filed_spans, there), removing(filed_spans, gone))


@lru_cache
def _spanning(kind: str) -> Select[Any]:
    groups = given(kind, _GROUPS, _GROUP)
    same = [filed_failures.c[name] == groups.c[name] for name in _GROUP]
    first = select(func.min(filed_failures.c.first_at)).where(*same).scalar_subquery()
    last = select(func.max(filed_failures.c.last_at)).where(*same).scalar_subquery()
    return select(*groups.c, first.label("first_at"), last.label("last_at"))


@lru_cache
def _spanning_wholes(kind: str) -> Select[Any]:
    groups = given(kind, _GROUPS, _GROUP)
    parts = filed_spans.alias("parts")
    same = [parts.c[name] == groups.c[name] for name in ("company_id", "cause")]
    first, last = (
        select(each).where(*same, parts.c.fingerprint != "").scalar_subquery()
        for each in (func.min(parts.c.first_at), func.max(parts.c.last_at))
    )
    return select(*groups.c, first.label("first_at"), last.label("last_at"))
