"""To file failures costs what they cost, and not what all others do that are kept."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from app.db import filed, journal, refiled
from app.db.engine import Database
from app.db.keep import keep_all
from app.db.tables import filed_days, syncs, transactions
from app.domain.causes.classifier import UNCLASSIFIED
from app.domain.models import Item
from tests.reports import T0, delivery

MANY = 1000


@pytest.fixture
def large(database: Database) -> Database:
    """Many syncs of two companies, each with a failure that names no transaction."""
    one = delivery("m1", items=(Item(None, "Failed", "Oops"),), generated_at=T0)
    with database.writing() as connection:
        keep_all(connection, [one])
        journal.work_off_some(connection)
        sync = connection.execute(syncs.select()).mappings().one()
        item = connection.execute(transactions.select()).mappings().one()
        numbers = range(sync["id"] + 1000, sync["id"] + 1000 + MANY)
        connection.execute(
            syncs.insert(),
            [{**sync, "id": n, "sync_id": f"k{n}", "company_id": f"k{n % 2}"} for n in numbers],
        )
        rows = [{**item, "id": n, "sync": n} for n in numbers]
        done = {**item, "status": "Completed", "failed": False}
        done |= dict.fromkeys(("message", "cause", "fingerprint", "cause_rules"))
        named = [
            {**done, "id": n + p * MANY, "sync": n, "position": p, "transaction_id": f"t{n}-{p}"}
            for n in numbers
            for p in range(1, 10)
        ]
        connection.execute(transactions.insert(), rows + named)
    return database


def whole_reads(connection: Connection) -> Counter[str]:
    """How often this transaction has read all of a table."""
    found = connection.execute(text("SELECT relname, seq_scan FROM pg_stat_xact_user_tables"))
    return Counter({row.relname: row.seq_scan for row in found})


def test_transactions_are_never_read_as_a_whole_without_statistics(large: Database) -> None:
    """After a restore PostgreSQL knows nothing of its tables, and thinks each id is in many."""
    if large.is_sqlite:
        pytest.skip("SQLite goes by its indexes as long as it knows nothing")
    items = (Item("t1", "Failed", "Oops"), Item(None, "Failed", "Oops"))
    with large.writing() as connection:
        told = [delivery(f"n{n}", sync_id=f"n{n}", items=items) for n in range(8)]
        keep_all(connection, told)
    with large.writing() as connection:
        before = whole_reads(connection)
        journal.work_off_some(connection)
        read = whole_reads(connection)
    assert read[transactions.name] == before[transactions.name]


def steps(connection: Connection, work: Any) -> int:
    """How many thousand steps SQLite takes for something."""
    ticks: Counter[str] = Counter()
    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(lambda: ticks.update(["tick"]), 1000)
    work()
    driver.set_progress_handler(None, 0)
    return ticks.total()


def refile_all(connection: Connection, company_id: str) -> int:
    """As a recount does, part by part."""
    parts = refiled.parts_of(connection, company_id)
    return sum(refiled.refile_part(each, connection, company_id) for each in parts)


def test_nameless_failures_of_other_syncs_are_not_read_with_statistics(large: Database) -> None:
    """SQLite then takes an id that is empty for as rare as any other."""
    if not large.is_sqlite:
        pytest.skip("PostgreSQL notes how many ids are empty")
    with large.writing() as connection:
        assert refile_all(connection, "k0")
        connection.exec_driver_sql("ANALYZE")
    large.engine.dispose()
    some = [("k1", f"k{n}") for n in range(1003, 1203, 2)]
    with large.writing() as connection:
        filing = filed.Filing()
        assert steps(connection, lambda: filed.refile(connection, {}, some, filing)) < 200
        assert {cause for _, cause, _ in filing.groups} == {UNCLASSIFIED}
    with large.writing() as connection:
        assert steps(connection, lambda: refile_all(connection, "k1")) < 500


def test_a_nameless_failure_is_filed_once_for_its_sync(large: Database) -> None:
    """However many others there are of which one cannot be told from another."""
    with large.writing() as connection:
        wrong = refile_all(connection, "k0")
        assert refile_all(connection, "k0") == 0 < wrong
        mine = filed_days.c.company_id == "k0"
        days = connection.execute(select(filed_days.c.transactions).where(mine)).scalars()
        assert [*days] == [MANY / 2] * 2  # of the message, and of the cause
