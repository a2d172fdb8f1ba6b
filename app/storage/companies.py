"""Companies as webhooks speak of them: that they are there, and what they are called."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from sqlalchemy import Connection, or_

from app.rules.news import Delivery
from app.storage.bulk import Insert, Write, inserting, write
from app.storage.tables import companies


def merge_companies(connection: Connection, news: Sequence[Delivery]) -> None:
    """Know every company spoken of; its name is the one told last by Codat's clock."""
    named: dict[str, tuple[datetime, str]] = {}
    seen: set[str] = set()
    for delivery in news:
        event = delivery.event
        if event.company_id:
            seen.add(event.company_id)
        if event.company_id and event.company_name:
            told = (event.generated_at or delivery.received_at, event.company_name)
            named[event.company_id] = max(told, named.get(event.company_id, told))
    write(connection, _known(sorted(seen - named.keys())), _named(named))


def _known(company_ids: Sequence[str]) -> Write:
    return Write(companies, [{"company_id": each} for each in company_ids], _knowing)


def _named(named: dict[str, tuple[datetime, str]]) -> Write:
    rows = [
        {
            "company_id": company_id,
            "name": name,
            "name_folded": name.casefold(),
            "name_as_of": as_of,
        }
        for company_id, (as_of, name) in sorted(named.items())
    ]
    return Write(companies, rows, _naming)


@lru_cache
def _knowing(kind: str) -> Insert:
    return inserting(kind, companies, ("company_id",)).on_conflict_do_nothing()


@lru_cache
def _naming(kind: str) -> Insert:
    """A company's name is replaced only by one told later."""
    statement = inserting(kind, companies, ("company_id", "name", "name_folded", "name_as_of"))
    told = statement.excluded
    later = or_(
        companies.c.name_as_of.is_(None),
        companies.c.name_as_of < told.name_as_of,
        (companies.c.name_as_of == told.name_as_of) & (companies.c.name < told.name),
    )
    new = {name: told[name] for name in ("name", "name_folded", "name_as_of")}
    return statement.on_conflict_do_update(index_elements=["company_id"], set_=new, where=later)
