"""Rows told by their primary key: put in place, added to what is there, or taken away."""

from functools import lru_cache

from sqlalchemy import Delete, Table, TableClause, column, delete, select, table, tuple_

from app.db.bulk import Insert, Rows, Write, given, inserting


def replacing(whole: Table, rows: Rows) -> Write:
    """Insert these rows, which must name all columns; where the key is there, they replace it."""
    return Write(whole, rows, lambda kind: _replacing(kind, whole))


def adding(whole: Table, rows: Rows) -> Write:
    """Add the numbers of these rows, which must name all columns, to those of the same key.

    In their order. So two who add at once must sort by key, or each might wait for the other.
    """
    return Write(whole, rows, lambda kind: _adding(kind, whole))


def removing(whole: Table, rows: Rows) -> Write:
    """Delete the rows with the keys of these, which name no other columns.

    As a write it goes with another to the same table: the keys must be others.
    """
    return Write(_gone(whole), rows, lambda kind: _removing(kind, whole))


def _keys(whole: Table) -> tuple[str, ...]:
    return tuple(str(each.name) for each in whole.primary_key)  # plain ones, as JSON wants them


def _others(whole: Table) -> tuple[str, ...]:
    return tuple(str(each.name) for each in whole.c if not each.primary_key)


@lru_cache
def _gone(whole: Table) -> TableClause:
    return table(
        f"{whole.name}_gone", *(column(each.name, each.type) for each in whole.primary_key)
    )


@lru_cache
def _replacing(kind: str, whole: Table) -> Insert:
    statement = inserting(kind, whole, _keys(whole) + _others(whole))
    new = {name: statement.excluded[name] for name in _others(whole)}
    return statement.on_conflict_do_update(index_elements=[*_keys(whole)], set_=new)


@lru_cache
def _adding(kind: str, whole: Table) -> Insert:
    statement = inserting(kind, whole, _keys(whole) + _others(whole))
    more = {name: whole.c[name] + statement.excluded[name] for name in _others(whole)}
    return statement.on_conflict_do_update(index_elements=[*_keys(whole)], set_=more)


@lru_cache
def _removing(kind: str, whole: Table) -> Delete:
    names = _keys(whole)
    told = given(kind, _gone(whole), names)
    key = tuple_(*(whole.c[name] for name in names))
    return delete(whole).where(key.in_(select(*(told.c[name] for name in names))))
