"""The schema's version: bring it up to date, or say that it is not.

The migrations themselves are Alembic scripts in `migrations/` beside the package.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from app.errors import SchemaError
from app.storage import changes
from app.storage.database import Database

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
LOCK = 0x0C0DA7  # any number that only this service's migrations use


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def migrate(database: Database, revision: str = "head") -> tuple[str | None, str | None]:
    """Bring the database to `revision` and return the versions before and after.

    Safe to run twice and from two hosts at once: the second waits, then finds nothing to do.
    Raises StorageUnavailable when the database is away.
    """
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        before = _version(connection)
        config = _config(connection)
        down = revision == "base" or revision.startswith("-")
        (command.downgrade if down else command.upgrade)(config, revision)
        if _version(connection) == head():
            changes.go_on(connection)
        return before, _version(connection)


def drift(database: Database) -> list[str]:
    """What the tables in code have that the migrated database has not, and the reverse."""
    from alembic.autogenerate import compare_metadata

    from app.storage.tables import metadata

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


def head() -> str | None:
    """The newest version there is a migration for."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
