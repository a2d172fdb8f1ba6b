"""SQLite is told how its tables look: once they are large, and for connections to come."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from app.bootstrap import make_duties
from app.clients import make_codat
from app.db import engine as database_module
from app.db import statistics
from app.db.engine import Database, open_database
from app.db.keep import keep_all
from app.db.migrations import migrate
from app.settings import load_settings
from tests.reports import delivery


def known(database: Database) -> list[str]:
    """The tables of which SQLite has noted something."""
    with database.reading() as connection:
        if not connection.execute(
            text("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'")
        ).first():
            return []
        return list(connection.execute(text("SELECT DISTINCT tbl FROM sqlite_stat1")).scalars())


def fill(database: Database, syncs: int) -> None:
    with database.writing() as connection:
        keep_all(connection, [delivery(f"m{n}", sync_id=f"s{n}") for n in range(syncs)])


def test_sqlite_is_looked_over_once_it_is_worth_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is noted of a small database would mislead when it has grown. PostgreSQL needs none."""
    monkeypatch.setattr(statistics, "WORTH_IT", 3)
    fill(database, 2)
    assert not statistics.look_over(database)
    if database.is_sqlite:
        assert known(database) == []
    fill(database, 4)
    assert statistics.look_over(database) == database.is_sqlite
    if database.is_sqlite:
        assert {"syncs", "events", "fetches"} <= set(known(database))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_later_connection_chooses_the_index_that_leads_to_fewer_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One company has all syncs and one of them a rare status code: the code's index is better."""
    monkeypatch.setattr(statistics, "WORTH_IT", 1)
    fill(database, 200)
    with database.writing() as connection:
        connection.execute(text("UPDATE syncs SET status_code = id"))
    assert "ix_syncs_company_occurred" in plan(database)
    assert statistics.look_over(database)
    database.engine.dispose()
    assert "ix_syncs_status" in plan(database)


def plan(database: Database) -> str:
    """How SQLite would find the company's newest sync of a status code."""
    question = (
        "EXPLAIN QUERY PLAN SELECT * FROM syncs WHERE company_id = 'c1' AND status_code = 7"
        " ORDER BY occurred_at DESC, id DESC LIMIT 1"
    )
    with database.reading() as connection:
        return str(connection.execute(text(question)).all())


def test_connections_to_sqlite_are_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one that lives for weeks would know nothing of what was noted since."""
    monkeypatch.setattr(database_module, "RENEWED_AFTER_S", 0)
    database = open_database(f"sqlite:///{tmp_path / 'one.db'}")
    seen = []
    for _ in range(2):
        with database.reading() as connection:
            seen.append(connection.connection.dbapi_connection)
    assert seen[0] is not seen[1]
    database.close()


def test_a_worker_looks_sqlite_over_from_time_to_time(tmp_path: Path) -> None:
    """As one of its duties, so that of many replicas one does it."""
    url = f"sqlite:///{tmp_path / 'one.db'}"
    settings = load_settings(database_url=url, codat_api_key="k")
    database = open_database(url)
    migrate(database)

    def clock() -> datetime:
        return datetime.now(UTC)

    async def do() -> object:
        async with make_codat(settings, database, clock) as codat:
            duties = {each.name: each for each in make_duties(settings, database, codat, clock)}
            assert duties["statistics"].every == statistics.EVERY
            return await duties["statistics"].run()

    assert asyncio.run(do()) is False
    database.close()
