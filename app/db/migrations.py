"""The schema's version: bring it up to date, or say that it is not.

The migrations themselves are Alembic scripts in `migrations/` beside the package, numbered in their
order: the newest number is the version this code needs. So only who migrates loads Alembic.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from app.db import change_feed as changes
from app.db import journal
from app.db.engine import Database
from app.errors import SchemaError

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
LOCK = 0x0C0DA7  # any number that only this service's migrations use


def _config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def migrate(database: Database, revision: str = "head") -> tuple[str | None, str | None]:
    """Bring the database to `revision` and return the versions before and after.

    Safe to run twice and from two hosts at once: the second waits, then finds nothing to do.
    Raises StorageUnavailable when the database is away.
    """
    from alembic import command

    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        before = _version(connection)
        config = _config(connection)
        if before == head() and revision != "head":
            _work_off_all(connection)  # an older version knows no journal
        down = revision == "base" or revision < (before or "")  # "-1" sorts before all numbers
        (command.downgrade if down else command.upgrade)(config, revision)
        if _version(connection) == head():
            changes.go_on(connection)
        return before, _version(connection)


def _work_off_all(connection: Connection) -> None:
    while journal.work_off_some(connection):
        pass


def drift(database: Database) -> list[str]:
    """What the tables in code have that the migrated database has not, and the reverse."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from app.db.tables import metadata

    with database.reading() as connection:
        context = MigrationContext.configure(connection)
        return [str(difference) for difference in compare_metadata(context, metadata)]


def check(connection: Connection) -> None:
    """Return when the schema is the one this code needs; else raise SchemaError with the remedy."""
    have, need = _version(connection), head()
    if have != need:
        raise SchemaError(
            f"the database schema is at {have or 'nothing'}, this code needs {need}: "
            "run `python -m app migrate`"
        )


def head() -> str:
    """The newest version there is a migration for."""
    return max(file.name.partition("_")[0] for file in MIGRATIONS.glob("versions/[0-9]*.py"))


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
