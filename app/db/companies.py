"""Companies as webhooks speak of them: that they are there, and what they are called."""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import or_

from app.db.bulk import Insert, Write, inserting
from app.db.tables import companies
from app.domain.models import Delivery


def spoken_of(deliveries: Iterable[Delivery]) -> Write:
    """To know every company spoken of; its name is the one told last by Codat's clock."""
    named: dict[str, tuple[datetime, str] | None] = {}
    for delivery in deliveries:
        event = delivery.event
        if event.company_id:
            before = named.setdefault(event.company_id, None)
            if event.company_name:
                told = (event.generated_at or delivery.received_at, event.company_name)
                named[event.company_id] = max(told, before or told)
    return Write(companies, [_row(*each) for each in sorted(named.items())], _naming)


def _row(company_id: str, told: tuple[datetime, str] | None) -> dict[str, Any]:
    as_of, name = told or (None, None)
    return {
        "company_id": company_id,
        "name": name,
        "name_folded": name and name.casefold(),
        "name_as_of": as_of,
    }


@lru_cache
def _naming(kind: str) -> Insert:
    """A company's name is replaced only by one told later: by none, where none was told."""
    statement = inserting(kind, companies, ("company_id", "name", "name_folded", "name_as_of"))
    told = statement.excluded
    later = told.name.is_not(None) & or_(
        companies.c.name_as_of.is_(None),
        companies.c.name_as_of < told.name_as_of,
        (companies.c.name_as_of == told.name_as_of) & (companies.c.name < told.name),
    )
    new = {name: told[name] for name in ("name", "name_folded", "name_as_of")}
    return statement.on_conflict_do_update(index_elements=["company_id"], set_=new, where=later)
