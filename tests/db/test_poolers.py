"""PostgreSQL behind a pooler: PgBouncer, as it is configured by default and in each mode.

A pooler refuses the start-up parameter `options`, and gives each transaction another session.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from app.db.engine import open_database
from app.db.event_store import EventStore, ReceivedEvent
from app.db.migrations import migrate
from app.errors import DatabaseUnavailable, DatabaseUnusable
from tests import processes
from tests.factories import T0
from tests.pgbouncer import pooler
from tests.processes import deliver, failed_event, get, wait_for

LEAKED = ("statement_timeout", "lock_timeout", "jit", "idle_in_transaction_session_timeout")


def settings_of_others(url: str) -> dict[str, str]:
    """What another application of the same pooler finds in its session."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        found = {}
        for name in LEAKED:
            row = connection.execute(f"SHOW {name}".encode()).fetchone()
            assert row
            found[name] = row[0]
        return found


@pytest.mark.own_database
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_the_whole_service_works_through_a_pooler(
    postgresql_url: str, tmp_path: Path, mode: str
) -> None:
    """Deliveries, redeliveries, the worker and the API; and other clients are left alone."""
    own = settings_of_others(postgresql_url.replace("+psycopg", ""))
    with (
        pooler(postgresql_url, mode, default_pool_size="40") as url,
        processes.stage(tmp_path, url) as stage,
    ):
        assert stage.run("migrate").returncode == 0
        worker = stage.start("worker")
        web = stage.serve(WORKER_IN_WEB="false")

        def send(number: int) -> int:
            return deliver(web, f"m{number % 40}", failed_event(f"s{number % 40}"))

        with ThreadPoolExecutor(8) as pool:  # each twice
            assert set(pool.map(send, range(80))) <= {204, 503}
        for number in range(40):  # 503 while the worker has the event in hand
            wait_for(lambda: send(number) == 204)  # noqa: B023 # called at once
        wait_for(lambda: get(web, "/syncs/s39"))
        wait_for(lambda: processes.answers(web, "/readyz"))
        assert settings_of_others(url) == own
        assert stage.run("rebuild").returncode == 0
        assert [process.stop() for process in (web, worker)] == [0, 0]
        assert "Traceback" not in web.logged() + worker.logged()
        assert "could not" not in web.logged() + worker.logged()


@pytest.mark.own_database
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_an_empty_database_is_migrated_through_a_pooler(
    postgresql_server: str, empty_postgresql_url: str, mode: str
) -> None:
    with pooler(empty_postgresql_url, mode) as url:
        database = open_database(url)
        assert migrate(database)[0] is None
        assert migrate(database)[0] is not None
        database.close()


@pytest.mark.own_database
def test_each_transaction_has_our_settings_and_none_prepared_statements(
    postgresql_url: str,
) -> None:
    """With fewer sessions than clients, a prepared statement would be another client's."""
    with pooler(postgresql_url, "transaction", default_pool_size="1") as url:
        databases = [open_database(url) for _ in range(3)]
        for number in range(40):
            database = databases[number % 3]
            with database.writing() as connection:
                assert connection.execute(text("SHOW jit")).scalar() == "off"
                assert connection.execute(text("SHOW statement_timeout")).scalar() == "30s"
                zone = connection.execute(text("SHOW timezone")).scalar()
                isolation = connection.execute(text("SHOW transaction_isolation")).scalar()
                assert (zone, isolation) == ("UTC", "read committed")
                answer = connection.execute(text("SELECT :n + :m"), {"n": number, "m": 1}).scalar()
                assert answer == number + 1
        with databases[0].reading() as connection:
            left = connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar()
        assert left == 0
        for database in databases:
            database.close()


@pytest.mark.own_database
def test_a_redelivery_leaves_no_setting_behind(postgresql_url: str) -> None:
    async def store_twice(url: str) -> list[bool]:
        database = open_database(url)
        store = EventStore(database)
        stored = [await store.store(ReceivedEvent("m", T0, b"{}"))]
        for second in range(1, 9):
            event = ReceivedEvent("m", T0.replace(second=second), b"{}")
            stored.append(await store.store(event))
        await store.close()
        database.close()
        return stored

    with pooler(postgresql_url, "transaction", default_pool_size="1") as url:
        assert asyncio.run(store_twice(url)) == [True, *[False] * 8]
        assert settings_of_others(url)["lock_timeout"] == "0"


@pytest.mark.parametrize("query", ["?options=-csearch_path%3Dother", "?schema=other"])
@pytest.mark.parametrize("more", [{}, {"ignore_startup_parameters": "options"}])
def test_a_schema_that_the_pooler_does_not_pass_on_is_refused(
    postgresql_url: str, query: str, more: dict[str, str]
) -> None:
    """Else the tables would be made in another schema."""
    with pooler(postgresql_url, "transaction", **more) as url:
        database = open_database(url + query)
        with pytest.raises(DatabaseUnusable, match="ALTER ROLE … SET search_path"):
            migrate(database)
        database.close()


def test_statement_mode_is_refused_in_one_line(postgresql_url: str) -> None:
    with pooler(postgresql_url, "statement") as url:
        database = open_database(url)
        with pytest.raises(DatabaseUnavailable) as caught, database.reading():
            pass
        database.close()
    assert str(caught.value).endswith("Set the pooler's pool_mode to transaction or session.")
    assert "\n" not in str(caught.value)


def test_an_address_can_say_that_it_leads_to_a_pooler(postgresql_url: str) -> None:
    """As Prisma's and Supabase's do: settings then hold for one transaction only."""
    database = open_database(postgresql_url + "?pgbouncer=true&connection_limit=1&schema=public")
    with database.reading() as connection:
        assert connection.execute(text("SHOW jit")).scalar() == "off"
        connection.commit()
        driver = connection.connection.driver_connection
        assert driver
        assert driver.execute("SHOW statement_timeout").fetchone() == ("0",)
    database.close()
    assert make_url(postgresql_url).query == {}
