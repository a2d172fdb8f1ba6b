"""Migrations: up, no drift, down, up again; twice; from two hosts at once; on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from app.db import migrations as schema
from app.db.causes_counted import CauseFilter
from app.db.engine import Database, open_database
from app.db.queries import causes as queries_causes
from app.db.queries import companies as queries_companies
from app.db.recount import recount
from app.db.tables import metadata
from app.errors import SchemaError, StorageUnavailable
from tests import processes
from tests.web.shelf import Shelf, after, done_item, failed_item


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_an_empty_database_is_brought_up_down_and_up_again(empty_database_url: str) -> None:
    """And ends as the tables in the code say."""
    database = open_database(empty_database_url)
    assert schema.migrate(database) == (None, schema.head())
    assert tables(database) == set(metadata.tables)
    schema.migrate(database, "base")
    assert tables(database) == set()
    schema.migrate(database)
    assert schema.drift(database) == []
    database.close()


def test_the_newest_file_is_the_newest_migration() -> None:
    """Who only serves goes by the names of the files, and does not load Alembic for it."""
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.head()]


def test_migrating_twice_does_nothing_the_second_time(database: Database) -> None:
    """A restart may run it every time."""
    assert schema.migrate(database) == (schema.head(), schema.head())


def test_what_an_old_database_holds_is_counted_when_it_is_migrated(database: Database) -> None:
    """Totals by company and day, open failures, folded names: as a recount would find them."""
    shelf = Shelf(database)
    shelf.company("c1", "Ærø Stores")
    shelf.failed("s1", items=(failed_item("t1"), failed_item("t2"), failed_item(None)))
    shelf.done("s2", items=(done_item("t1"),), at=after(hours=30))
    schema.migrate(database, "0001")
    schema.migrate(database)
    assert recount(database) == 0
    with database.reading() as connection:
        company = queries_companies.get_company(connection, "c1")
        found = queries_companies.list_companies(connection, q="ærø").items
        days = queries_companies.stats(connection, None, None).by_day
    assert (company.by_outcome, company.open_failures) == ({"failed": 1, "all_written": 1}, 2)
    assert [each.company_id for each in found] == ["c1"]
    assert sorted(days) == ["2026-01-01", "2026-01-02"]


def test_the_failures_of_an_old_database_are_filed_when_it_is_migrated(database: Database) -> None:
    """Cured and open, with and without an id, of two messages, as a whole: as a recount would."""
    shelf = Shelf(database)
    shelf.failed("s1", items=(failed_item("t1"), failed_item("t2", "Oops"), failed_item(None)))
    shelf.done("s2", items=(done_item("t1"),), at=after(hours=30))
    shelf.failed("s3", items=(failed_item("t1", "Alas"), failed_item("t1")), at=after(hours=60))
    shelf.failed("s4", items=(failed_item("t2"), failed_item("t2", "Oops")), at=after(hours=90))
    shelf.sync("s5", "c2", code=4040, error_message="Company c2 is gone")
    with database.reading() as connection:
        before = queries_causes.list_causes(connection, CauseFilter())
    schema.migrate(database, "0007")
    schema.migrate(database)
    with database.reading() as connection:
        assert queries_causes.list_causes(connection, CauseFilter()) == before
    assert recount(database) == 0


def test_two_hosts_may_migrate_at_once(empty_database_url: str) -> None:
    """One does it, the others wait and find nothing to do."""
    before: list[str | None] = []
    errors: list[Exception] = []

    def migrate() -> None:
        database = open_database(empty_database_url)
        try:
            before.append(schema.migrate(database)[0])
        except Exception as error:
            errors.append(error)
        database.close()

    hosts = [threading.Thread(target=migrate) for _ in range(4)]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    assert errors == []
    assert sorted(before, key=str) == [schema.head()] * 3 + [None]


def test_the_command_may_run_twice_and_in_two_processes_at_once(
    empty_database_url: str, tmp_path: Path
) -> None:
    """As when two containers start together, and again at the next start."""

    def migrate(_: int) -> str:
        done = processes.run(tmp_path, "migrate", DATABASE_URL=empty_database_url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with ThreadPoolExecutor(2) as hosts:
        told = sorted(hosts.map(migrate, range(2)))
    up_to_date = f"schema {schema.head()}: was up to date\n"
    assert told == [f"schema {schema.head()}: was None\n", up_to_date]
    assert migrate(3) == up_to_date


@pytest.mark.parametrize("verb", ["serve", "worker", "prune", "redrive --all-dead"])
def test_no_verb_works_on_an_old_schema(empty_database_url: str, tmp_path: Path, verb: str) -> None:
    """It ends with one line that names the remedy, before it does anything."""
    settings = {"DATABASE_URL": empty_database_url, "KEEP_EVENTS_DAYS": "9"}
    done = processes.run(tmp_path, *verb.split(), **settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "python -m app migrate" in done.stderr


def test_an_old_schema_is_refused_with_the_remedy(empty_database_url: str) -> None:
    """Serving on it would fail later, and less clearly."""
    database = open_database(empty_database_url)
    with database.reading() as connection, pytest.raises(SchemaError, match="app migrate"):
        schema.check(connection)
    schema.migrate(database)
    with database.reading() as connection:
        schema.check(connection)
    database.close()


def test_a_database_that_is_not_there_is_one_clear_error() -> None:
    """Nothing listens on this port."""
    database = open_database("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(StorageUnavailable):
        schema.migrate(database)
