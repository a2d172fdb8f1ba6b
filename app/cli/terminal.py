"""What the verbs share: settings and logging, the database, one-line errors, progress."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from app import logging as log
from app.errors import ServiceError
from app.settings import Settings, in_a_container, load_settings

if TYPE_CHECKING:
    from app.db.engine import Database


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn our own errors into one line on stderr and exit code 1."""
    try:
        yield
    except ServiceError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def read_settings(*required: str) -> Settings:
    """Load the settings, and set up logging as they say. Raises SettingsError."""
    settings = load_settings(required=required)
    is_shown = sys.stderr.isatty() and not in_a_container()
    default_format = "console" if is_shown else "json"
    log.configure(settings.log_level, settings.log_format or default_format)
    return settings


@contextmanager
def open_database(settings: Settings) -> Iterator["Database"]:
    """Open the database, and close it at the end of the block."""
    from app.bootstrap import make_database

    database = make_database(settings)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def open_current_database(settings: Settings) -> Iterator["Database"]:
    """Like `open_database`. Raises SchemaError unless the schema is the one this code needs."""
    from app.db import migrations

    with open_database(settings) as database:
        with database.reading() as connection:
            migrations.check(connection)
        yield database


def report_progress(line: str) -> None:
    """Print a line of progress to stderr, so that stdout has the result only."""
    typer.echo(line, err=True)
