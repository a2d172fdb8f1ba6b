"""Measures every query over a million syncs, relative to reading one sync.

    python -m bench.queries --syncs 1000000 --database postgresql

Fills a database, starts `python -m app serve` on it and makes every query over HTTP. Each is
compared with `GET /syncs/{id}` over the same database in the same run: none may take more than 150
times as long, and nine in ten at most 15 times. The exit code is 1 otherwise.
"""

import statistics
import sys
import time
from datetime import timedelta
from itertools import product
from typing import Any
from urllib.parse import quote

import httpx
from sqlalchemy import func, select

from app.db.tables import changes, syncs, transactions, webhook_events
from bench.data import SPAN, company_id, company_name, fill
from bench.harness import KINDS, make_parser, migrated_stage, reading
from tests import databases
from tests.processes import API_KEY, AUTHORIZED, TLS, Stage

LIMIT, USUAL_LIMIT, USUAL_SHARE = 150, 15, 0.9
SYNCS = {"postgresql": 1_000_000, "sqlite": 300_000}
SERVER = (*databases.FAST, "shared_buffers=1GB", "maintenance_work_mem=512MB", "max_wal_size=8GB")
ONE_SYNC = "/api/v1/syncs/{sync}"
SORTS = ("updated_at", "started_at", "finished_at", "company_id", "status_code")
FILTERS = """
    state=failed  state=started  outcome=failed  outcome=unknown  status_code=5130
    outcome=failed&outcome=partly_failed  status_code=2040  cause=account_inactive
    cause=unclassified  cause=never_seen  from={day}&to={day}  from={day}&to={week_end}  to={day}
    from={day}  from={day}&to={day}&state=failed  company_id={large}
    company_id={large}&state=failed  company_id={large}&outcome=unknown
    company_id={large}&from={day}&to={day}  company_id={usual}  company_id={usual}&state=failed
"""
PUSH_ERROR_FILTERS = """
    open=true  open=false  cause=account_inactive  cause=account_inactive&open=true
    cause=never_seen  from={day}&to={day}  from={day}&to={day}&open=true  company_id={large}
    company_id={large}&open=true  company_id={large}&cause=account_inactive  company_id={usual}
    company_id={usual}&open=true  format=csv&limit=200  cursor={push_error_cursor}
"""
SEARCHES = """
    {sync}  {large}  {usual}  {usual_name}  harb  sons  {transaction}  {correlation}  never-seen
    {sync_beginning}  {transaction_beginning}
"""
OTHERS = """
    /api/v1/syncs?limit=200  /api/v1/syncs?format=csv&limit=200
    /api/v1/syncs/{sync}/transactions  /api/v1/syncs/{sync}/transactions?failed=true
    /api/v1/syncs/{sync}/transactions?q=account  /api/v1/syncs/{sync}/transactions/{transaction}
    /api/v1/syncs/{sync}/timeline  /api/v1/push-errors
    /api/v1/companies  /api/v1/companies?q=harb  /api/v1/companies?q={usual_name}
    /api/v1/companies?q={large}  /api/v1/companies/{large}/transactions/{transaction}
    /api/v1/companies/{large}  /api/v1/companies/{large}/syncs/latest
    /api/v1/companies/{large}/syncs/last-successful  /api/v1/companies/{usual}
    /api/v1/companies/{usual}/syncs/latest  /api/v1/companies/{usual}/syncs/last-successful
    /api/v1/causes  /api/v1/causes?from={start}  /api/v1/causes?from={day}&to={day}
    /api/v1/causes?company_id={large}  /api/v1/causes?company_id={large}&from={start}
    /api/v1/causes?company_id={usual}  /api/v1/causes/account_inactive
    /api/v1/causes/account_inactive/companies
    /api/v1/causes/account_inactive/companies?from={start}
    /api/v1/companies?cannot_sync=true  /api/v1/retries/preview?cause=account_inactive
    /api/v1/retries/preview?company_id={large}  /api/v1/retries/preview?from={day}&to={day}
    /api/v1/causes/account_inactive?from={start}  /api/v1/stats  /api/v1/stats?from={month}
    /api/v1/stats?from={start}  /api/v1/stats?from={day}&to={day}
    /api/v1/changes  /api/v1/changes?after={change}  /api/v1/alerts  /metrics
    /api/v1/events  /api/v1/events?parse_status=unreadable  /api/v1/events?parse_status=ok
    /api/v1/events/{event}?body=true
    /codat/companies  /codat/companies?page=2&pageSize=100
    /codat/companies/{large}/sync/expenses/syncs/list/status
    /codat/companies/{large}/sync/expenses/syncs/latest/status
    /codat/companies/{large}/sync/expenses/syncs/lastSuccessful/status
    /codat/companies/{large}/sync/expenses/syncs/{sync}/status
    /codat/companies/{large}/sync/expenses/syncs/{sync}/transactions
    /  /?from={month}  /?from={start}  /?from={month}&outcome=failed  /?q={transaction}
    /syncs/{sync}?company_id={large}  /companies/{large}/transactions/{transaction}
    /causes  /causes?from={start}  /causes/account_inactive  /retries?cause=account_inactive
    /companies  /companies/{large}  /companies/{usual}  /events
"""


def questions(client: httpx.Client, url: str) -> dict[str, str]:
    """The path of each question, by the same path with names for ids and days."""
    values = _values(url)
    middle = f"limit=1&to={values['middle']}"
    values["push_error_cursor"] = _cursor(client, f"/api/v1/push-errors?{middle}")
    found = [ONE_SYNC]
    for direction, sort in product(("", "-"), SORTS):
        path = f"/api/v1/syncs?sort={direction}{sort}"
        found.append(path)
        if sort in ("started_at", "updated_at"):
            name = f"{direction.replace('-', 'descending_')}{sort}_cursor"
            values[name] = _cursor(client, f"{path}&{middle if direction else 'limit=1'}")
            found.append(f"{path}&cursor={{{name}}}")
    for query, sort in product(FILTERS.split(), ("-updated_at", "-started_at")):
        found.append(f"/api/v1/syncs?{query}&sort={sort}")
    found += [f"/api/v1/push-errors?{query}" for query in PUSH_ERROR_FILTERS.split()]
    for query, where in product(SEARCHES.split(), ("syncs", "push-errors")):
        found.append(f"/api/v1/{where}?q={query}")
    return {path: path.format_map(values) for path in [*found, *OTHERS.split()]}


def _cursor(client: httpx.Client, path: str) -> str:
    return quote(client.get(path).raise_for_status().json()["next"])


def _values(url: str) -> dict[str, Any]:
    """Ids of the newest failed sync of the largest company and of a usual company, and days."""
    large = company_id(0)
    failed = (
        select(syncs.c.sync_id, transactions.c.transaction_id, transactions.c.correlation_id)
        .join_from(syncs, transactions, transactions.c.sync_pk == syncs.c.id)
        .where(syncs.c.company_id == large, syncs.c.failed > 0)
        .where(transactions.c.correlation_id.is_not(None))
        .order_by(syncs.c.occurred_at.desc())
        .limit(1)
    )
    event = select(webhook_events.c.message_id).order_by(webhook_events.c.id.desc()).limit(1)
    with reading(url) as connection:
        sync, transaction, correlation = connection.execute(failed).one()
        until = connection.execute(select(func.max(syncs.c.occurred_at))).scalar_one()
        last_change = connection.execute(select(func.max(changes.c.id))).scalar_one()
        newest_event = connection.execute(event).scalar_one()
    days_ago = {"day": 70, "week_end": 64, "month": 30, "middle": 90, "start": 2 * SPAN.days}
    return {
        **{name: (until - timedelta(days=days)).date() for name, days in days_ago.items()},
        "large": large,
        "usual": company_id(30),
        "usual_name": quote(company_name(30)),
        "sync": sync,
        "sync_beginning": sync[:8],
        "transaction": transaction,
        "transaction_beginning": transaction[:8],
        "correlation": correlation,
        "event": newest_event,
        "change": last_change - 100,
    }


def measure(stage: Stage, rounds: int) -> dict[str, list[float]]:
    """The seconds that each question took, by name; the first time does not count."""
    times: dict[str, list[float]] = {}
    server = stage.serve(WORKER_IN_WEB="false", LOG_LEVEL="warning")
    with httpx.Client(
        base_url=server.address, headers=AUTHORIZED, timeout=300, verify=TLS
    ) as client:
        client.post("/sign-in", data={"key": API_KEY})
        paths = questions(client, stage.database_url)
        for name, path in paths.items():
            _time(client, name, path)
            for _ in range(rounds):
                times.setdefault(ONE_SYNC, []).append(_time(client, ONE_SYNC, paths[ONE_SYNC]))
                if name != ONE_SYNC:
                    times.setdefault(name, []).append(_time(client, name, path))
    return times


def _time(client: httpx.Client, name: str, path: str) -> float:
    began = time.perf_counter()
    answer = client.get(path)
    if answer.status_code != 200:
        raise RuntimeError(f"{name}: {path}: {answer.status_code} {answer.text[:200]}")
    return time.perf_counter() - began


def report(times: dict[str, list[float]]) -> bool:
    """Print the table, slowest first; True when the targets are met."""
    medians = {name: statistics.median(found) for name, found in times.items()}
    base = medians[ONE_SYNC]
    print("| question | ms | × one sync |\n| --- | ---: | ---: |")
    for name, seconds in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"| {name} | {seconds * 1000:.1f} | {seconds / base:.1f} |")
    ratios = [seconds / base for seconds in medians.values()]
    usual = sum(ratio <= USUAL_LIMIT for ratio in ratios) / len(ratios)
    met = max(ratios) <= LIMIT and usual >= USUAL_SHARE
    print(f"\n{len(ratios)} questions; slowest {max(ratios):.0f} × one sync (at most {LIMIT});"
          f" {usual:.0%} within {USUAL_LIMIT} × (at least {USUAL_SHARE:.0%});"
          f" met: {'yes' if met else 'NO'}")  # fmt: skip
    return met


def main() -> int:
    """Fill, ask, print; 0 only if the targets are met."""
    parser = make_parser("queries", __doc__)
    parser.add_argument("--syncs", type=int, help="1,000,000 on PostgreSQL, 300,000 on SQLite")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", choices=KINDS, default="postgresql")
    options = parser.parse_args()
    with migrated_stage(options.database, SERVER) as stage:
        fill(stage.database_url, options.syncs or SYNCS[options.database])
        return 0 if report(measure(stage, options.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
