"""Migrations on both databases: no drift, twice, from several hosts at the same time."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text

from app.db import migrations
from app.db.engine import open_database
from app.db.tables import companies, metadata
from app.errors import DatabaseUnavailable, SchemaError


def test_an_empty_database_gets_the_tables_in_the_code(empty_database_url: str) -> None:
    """Until then it is refused with the remedy; a second time does nothing."""
    database = open_database(empty_database_url)
    with database.reading() as connection, pytest.raises(SchemaError, match="app migrate"):
        migrations.check(connection)
    assert migrations.migrate(database) == (None, migrations.head())
    assert migrations.migrate(database) == (migrations.head(), migrations.head())
    tables = set(inspect(database.engine).get_table_names())
    assert tables == {*metadata.tables, "alembic_version"}
    with database.reading() as connection:
        migrations.check(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    database.close()


def test_the_highest_file_number_is_the_head() -> None:
    """`serve` reads the file names and does not load Alembic for it."""
    config = Config()
    config.set_main_option("script_location", str(migrations.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.head()]


def test_a_newer_schema_is_accepted(empty_database_url: str) -> None:
    """The next release has migrated it, and its containers are being replaced."""
    database = open_database(empty_database_url)
    migrations.migrate(database)
    for version, is_accepted in (("9999", True), ("0001", False)):
        with database.writing() as connection:
            connection.execute(text(f"UPDATE alembic_version SET version_num = '{version}'"))
        with database.reading() as connection:
            if is_accepted:
                migrations.check(connection)
            else:
                with pytest.raises(SchemaError, match="is 0001"):
                    migrations.check(connection)
    database.close()


def test_several_hosts_may_migrate_at_the_same_time(empty_database_url: str) -> None:
    """One migrates; the others wait and find nothing to do."""

    def migrate(_: int) -> str | None:
        database = open_database(empty_database_url)
        before, _after = migrations.migrate(database)
        database.close()
        return before

    with ThreadPoolExecutor(4) as hosts:
        before = list(hosts.map(migrate, range(4)))
    assert sorted(before, key=str) == [migrations.head()] * 3 + [None]


def test_an_unreachable_database_is_one_clear_error() -> None:
    """Nothing listens on this port."""
    database = open_database("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(DatabaseUnavailable):
        migrations.migrate(database)


def test_names_of_0_2_0_are_folded_again(empty_database_url: str) -> None:
    """It folded their case only, so that they were not found without accents."""
    database = open_database(empty_database_url)
    config = Config()
    config.set_main_option("script_location", str(migrations.MIGRATIONS))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text("INSERT INTO companies (company_id, name, name_folded) VALUES ('c1', :name, 'x')"),
            {"name": "Müller, Søn & Co."},
        )
        connection.execute(text("INSERT INTO companies (company_id) VALUES ('c2')"))
    assert migrations.migrate(database) == ("0001", migrations.head())
    with database.reading() as connection:
        folded = connection.execute(select(companies.c.company_id, companies.c.name_folded)).all()
    assert sorted(map(tuple, folded)) == [("c1", "muller son & co"), ("c2", None)]
    database.close()
