"""Every question our API and Codat's read paths answer, as paths, for a database of bench.data."""

from datetime import timedelta
from itertools import product
from typing import Any
from urllib.parse import quote

import httpx
from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import events, syncs, transactions
from bench.data import SPAN, UNTIL, company_id, company_name

API = "/api/v1"
SORTS = ("updated_at", "started_at", "finished_at", "company_id", "status_code")
USUAL, LARGEST = 30, 0


async def questions(client: httpx.AsyncClient, database: Database) -> dict[str, str]:
    """A path for each question, by name; the names are the same whatever the database's size."""
    asked: dict[str, str] = {}
    asked |= await _lists(client)
    asked |= _filters()
    asked |= _searches(database)
    asked |= _details(database)
    asked |= _companies()
    asked |= await _errors(client)
    asked |= _pages(database)
    return asked


async def _next(client: httpx.AsyncClient, path: str) -> str:
    answer: dict[str, Any] = (await client.get(path)).raise_for_status().json()
    return quote(answer["next"])


async def _lists(client: httpx.AsyncClient) -> dict[str, str]:
    """Every sort: the first page and one from the middle."""
    paths = {}
    middle = f"&to={(UNTIL - SPAN / 2).date()}"
    for sort, way in product(SORTS, ("", "-")):
        base = f"{API}/syncs?sort={way}{sort}"
        paths[f"syncs by {way}{sort}"] = base
        if sort in ("started_at", "updated_at"):
            cursor = await _next(client, f"{base}&limit=1{middle if way else ''}")
            paths[f"syncs by {way}{sort}, deep page"] = f"{base}&cursor={cursor}"
    paths["syncs, 200 a page"] = f"{API}/syncs?limit=200"
    return paths


def _filters() -> dict[str, str]:
    """Filters alone, together, and with another sort."""
    day = (UNTIL - timedelta(days=70)).date()
    week = (UNTIL - timedelta(days=64)).date()
    wanted = {
        "state=failed": "state=failed",
        "state=started": "state=started",
        "outcome=failed": "outcome=failed",
        "outcome=partly_failed": "outcome=partly_failed",
        "outcome=unknown": "outcome=unknown",
        "two outcomes": "outcome=failed&outcome=partly_failed",
        "status_code=5130": "status_code=5130",
        "status_code=2040": "status_code=2040",
        "cause, common": "cause=account_closed",
        "cause, unheard of": "cause=never_seen",
        "one day": f"from={day}&to={day}",
        "one week": f"from={day}&to={week}",
        "until a day": f"to={day}",
        "since a day": f"from={day}",
        "one day, failed": f"from={day}&to={day}&state=failed",
        "largest company": f"company_id={company_id(LARGEST)}",
        "largest company, failed": f"company_id={company_id(LARGEST)}&state=failed",
        "largest company, unknown": f"company_id={company_id(LARGEST)}&outcome=unknown",
        "largest company, one day": f"company_id={company_id(LARGEST)}&from={day}&to={day}",
        "usual company": f"company_id={company_id(USUAL)}",
        "usual company, failed": f"company_id={company_id(USUAL)}&state=failed",
    }
    paths = {f"syncs: {name}": f"{API}/syncs?{query}" for name, query in wanted.items()}
    for name, query in wanted.items():
        paths[f"syncs: {name}, by -started_at"] = f"{API}/syncs?{query}&sort=-started_at"
    paths["syncs: state=failed, by company_id"] = f"{API}/syncs?state=failed&sort=company_id"
    return paths


def _searches(database: Database) -> dict[str, str]:
    """What may be pasted into the search box."""
    own_id, transaction, correlation = _one_failed(database)
    wanted = {
        "sync id": own_id,
        "company id, largest": company_id(LARGEST),
        "company id, usual": company_id(USUAL),
        "company name": company_name(USUAL),
        "company name's beginning": "harb",
        "transaction id": transaction,
        "correlation id": correlation,
        "nothing known": "never-seen-by-anybody",
    }
    paths = {}
    for name, q in wanted.items():
        paths[f"search: {name}"] = f"{API}/syncs?q={quote(q)}"
        paths[f"search in failures: {name}"] = f"{API}/push-errors?q={quote(q)}"
    return paths


def _one_failed(database: Database) -> tuple[str, str, str]:
    """The newest failed sync of the largest company: its id, an item's ids."""
    with database.reading() as connection:
        row = connection.execute(
            select(
                syncs.c.sync_id,
                transactions.c.transaction_id,
                transactions.c.correlation_id,
            )
            .join_from(syncs, transactions, transactions.c.sync == syncs.c.id)
            .where(syncs.c.company_id == company_id(LARGEST), syncs.c.failed > 0)
            .where(transactions.c.correlation_id.is_not(None))
            .order_by(syncs.c.occurred_at.desc())
            .limit(1)
        ).one()
        return row.sync_id, row.transaction_id, row.correlation_id


def _details(database: Database) -> dict[str, str]:
    """One sync and what belongs to it, here and on Codat's own paths; events; statistics."""
    own_id, transaction, _ = _one_failed(database)
    largest = company_id(LARGEST)
    mirror = f"/codat/companies/{largest}/sync/expenses/syncs"
    day = (UNTIL - timedelta(days=70)).date()
    event = _newest_event(database)
    return {
        "one sync": f"{API}/syncs/{own_id}",
        "its transactions": f"{API}/syncs/{own_id}/transactions",
        "its failed transactions": f"{API}/syncs/{own_id}/transactions?failed=true",
        "its transactions, searched": f"{API}/syncs/{own_id}/transactions?q=account",
        "one of its transactions": f"{API}/syncs/{own_id}/transactions/{transaction}",
        "its timeline": f"{API}/syncs/{own_id}/timeline",
        "a transaction's history": f"{API}/companies/{largest}/transactions/{transaction}",
        "mirror: companies": "/codat/companies",
        "mirror: companies, second page": "/codat/companies?page=2&pageSize=100",
        "mirror: list of syncs": f"{mirror}/list/status",
        "mirror: latest": f"{mirror}/latest/status",
        "mirror: last successful": f"{mirror}/lastSuccessful/status",
        "mirror: one status": f"{mirror}/{own_id}/status",
        "mirror: transactions": f"{mirror}/{own_id}/transactions",
        "mirror: one transaction": f"{mirror}/{own_id}/transactions/{transaction}",
        "events": f"{API}/events",
        "events, unreadable": f"{API}/events?reading=unreadable",
        "events, ok": f"{API}/events?reading=ok",
        "one event": f"{API}/events/{event}?body=true",
        "stats of all": f"{API}/stats",
        "stats of a day": f"{API}/stats?from={day}&to={day}",
        "stats of ten weeks": f"{API}/stats?from={day}",
        "alerts": f"{API}/alerts",
        "metrics": "/metrics",
    }


def _newest_event(database: Database) -> str:
    with database.reading() as connection:
        newest = select(events.c.message_id).order_by(events.c.id.desc()).limit(1)
        return str(connection.execute(newest).scalar_one())


def _companies() -> dict[str, str]:
    """Lists and pages of companies, of the largest and of a usual one."""
    paths = {
        "companies": f"{API}/companies",
        "companies, by name": f"{API}/companies?q=harb",
        "companies, by whole name": f"{API}/companies?q={quote(company_name(USUAL))}",
        "companies, by id": f"{API}/companies?q={company_id(LARGEST)}",
    }
    for name, number in (("largest", LARGEST), ("usual", USUAL)):
        base = f"{API}/companies/{company_id(number)}"
        paths[f"{name} company"] = base
        paths[f"{name} company, latest"] = f"{base}/syncs/latest"
        paths[f"{name} company, last successful"] = f"{base}/syncs/last-successful"
    return paths


async def _errors(client: httpx.AsyncClient) -> dict[str, str]:
    """Failed transactions over all syncs, and why they failed."""
    base = f"{API}/push-errors"
    day = (UNTIL - timedelta(days=70)).date()
    largest, usual = company_id(LARGEST), company_id(USUAL)
    cursor = await _next(client, f"{base}?limit=1&to={(UNTIL - SPAN / 2).date()}")
    return {
        "failures": base,
        "failures, deep page": f"{base}?cursor={cursor}",
        "failures, open": f"{base}?open=true",
        "failures, cured": f"{base}?open=false",
        "failures of a cause": f"{base}?cause=account_closed",
        "failures of a cause unheard of": f"{base}?cause=never_seen",
        "failures of a day": f"{base}?from={day}&to={day}",
        "failures of the largest company": f"{base}?company_id={largest}",
        "failures of the largest company, open": f"{base}?company_id={largest}&open=true",
        "failures of a usual company": f"{base}?company_id={usual}",
        "failures of a usual company, open": f"{base}?company_id={usual}&open=true",
        "causes": f"{API}/causes",
        "causes of a day": f"{API}/causes?from={day}&to={day}",
        "causes of the largest company": f"{API}/causes?company_id={largest}",
        "causes of a usual company": f"{API}/causes?company_id={usual}",
        "one cause": f"{API}/causes/account_closed",
        "CSV of 200 syncs": f"{API}/syncs?format=csv&limit=200",
        "CSV of 200 failures": f"{base}?format=csv&limit=200",
    }


def _pages(database: Database) -> dict[str, str]:
    """The pages, which ask several questions each; whoever asks is signed in."""
    with database.reading() as connection:
        failed = select(syncs.c.sync_id, syncs.c.company_id).where(syncs.c.failed > 0)
        one = connection.execute(failed.order_by(syncs.c.id.desc()).limit(1)).one()
        own = select(transactions.c.transaction_id).join(syncs, syncs.c.id == transactions.c.sync)
        item = connection.execute(own.where(syncs.c.sync_id == one.sync_id).limit(1)).scalar_one()
    month = f"from={(UNTIL - timedelta(days=30)).date()}"
    company = f"/companies/{quote(one.company_id)}"
    return {
        "page: Sync health": f"/?{month}",
        "page: Sync health, one outcome": f"/?{month}&outcome=failed",
        "page: Sync health, a transaction": f"/?q={quote(item)}",
        "page: one sync": f"/syncs/{quote(one.sync_id)}?company_id={quote(one.company_id)}",
        "page: one transaction": f"{company}/transactions/{quote(item)}",
        "page: causes": f"/causes?{month}",
        "page: companies": "/companies",
        "page: largest company": f"/companies/{company_id(LARGEST)}",
        "page: usual company": f"/companies/{company_id(USUAL)}",
        "page: webhooks": "/events",
    }
