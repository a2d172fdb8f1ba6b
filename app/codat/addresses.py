"""Paths of Codat's API. An id is text from outside: it fills its place in a path and no more.

The words `list`, `latest` and `lastSuccessful` stand in the place of a sync id in three of Codat's
own paths (docs.codat.io/sync-for-expenses-api), so they are never taken for one.
"""

from urllib.parse import quote

from app.errors import CodatRefused

_TAKEN = frozenset({"list", "latest", "lastsuccessful"})
_DOTS = frozenset({"", ".", ".."})


def company_path(company_id: str, *more: str) -> str:
    """A path below one company; `more` is taken as it is. Raises CodatRefused for no id."""
    return "/".join(("/companies", segment(company_id), *more))


def syncs_path(company_id: str, *more: str) -> str:
    """A path below a company's expense syncs; `more` is taken as it is."""
    return company_path(company_id, "sync", "expenses", "syncs", *more)


def sync_path(company_id: str, sync_id: str, *more: str) -> str:
    """A path below one sync. Raises CodatRefused for a word that cannot be a sync id."""
    if sync_id.lower() in _TAKEN:
        raise CodatRefused("Codat has no such sync: this word is a part of its addresses")
    return syncs_path(company_id, segment(sync_id), *more)


def segment(part: str) -> str:
    """An id percent-encoded whole, slashes too.

    Raises CodatRefused for one that is empty or only dots: encoded or not, it would name another
    path.
    """
    if part in _DOTS:
        raise CodatRefused("Codat has nothing under this id: it is empty or only dots")
    return quote(part, safe="", errors="replace")
