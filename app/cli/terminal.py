"""What every verb of the command line shares: its settings, its database, how it ends."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from app import logging as log
from app.errors import ServiceError
from app.settings import Settings, in_a_container, load_settings

if TYPE_CHECKING:  # imported when needed: a verb must not load what it does not use
    from app.db.engine import Database


@contextmanager
def one_line() -> Iterator[None]:
    """An error we foresaw is one line on stderr and exit code 1, never a traceback."""
    try:
        yield
    except ServiceError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def read_settings() -> Settings:
    """The settings, with logging set up as they say. Raises SettingsError."""
    settings = load_settings()
    log.configure(
        settings.log_level, settings.log_format or ("json" if in_a_container() else "console")
    )
    return settings


@contextmanager
def database_of(settings: Settings) -> Iterator["Database"]:
    """The database, closed at the end of the block."""
    from app.clients import open_for

    database = open_for(settings)
    try:
        yield database
    finally:
        database.close()


def check_schema(settings: Settings) -> None:
    """Return when the database has the schema this code needs. Raises SchemaError."""
    from app.db import migrations as schema

    with database_of(settings) as database, database.reading() as connection:
        schema.check(connection)


def progress(line: str) -> None:
    """How far long work is: a line on stderr, so that stdout has only what was asked for."""
    typer.echo(line, err=True)


def can_ask() -> bool:
    """True where a person can answer a question."""
    return sys.stdin.isatty()
