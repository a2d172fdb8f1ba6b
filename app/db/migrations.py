"""The schema's version: bring it up to date, or report that it is not.

The migrations are Alembic scripts in `migrations/versions`, numbered in order: the newest number is
the version that this code needs, so only the command that migrates loads Alembic.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from app.db.engine import Database
from app.errors import SchemaError

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
LOCK = 0x0C0DA7  # any number that only this service's migrations use


def migrate(database: Database) -> tuple[str | None, str | None]:
    """Bring the database to the newest version; returns the versions before and after.

    Safe to run twice and from two hosts at the same time: the second one waits and then finds
    nothing to do. Raises DatabaseUnavailable when the database is down.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        before = _version(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return before, _version(connection)


def check(connection: Connection) -> None:
    """Raise SchemaError, naming the remedy, if the schema is older than this code needs.

    A newer one is fine: migrations only add, so that a release runs beside the next one.
    """
    found, needed = _version(connection), head()
    if found is None:
        raise SchemaError("The database is empty. Run `python -m app migrate` first.")
    if found < needed:  # four digits
        raise SchemaError(
            f"The database schema is {found}; this version needs {needed}. "
            "Run `python -m app migrate` first."
        )


def head() -> str:
    """The version of the newest migration."""
    return max(file.name.partition("_")[0] for file in MIGRATIONS.glob("versions/[0-9]*.py"))


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
