"""The verbs by which an operator looks after the service: prune."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import typer

from app.settings import Settings
from app.terminal import check_schema, database_of, one_line, progress, read_settings


def prune() -> None:
    """Remove raw webhook bodies that are older than KEEP_EVENTS_DAYS, now."""
    with one_line():
        settings = read_settings()
        check_schema(settings)
        asyncio.run(_prune(settings))


async def _prune(settings: Settings) -> None:
    from app.main import utc_now
    from app.work.retention import Retention

    if not settings.keep_events_days:
        typer.echo("KEEP_EVENTS_DAYS is 0: everything is kept, nothing was removed")
        return
    keep = timedelta(days=settings.keep_events_days)
    with database_of(settings) as database:
        typer.echo(str(await Retention(database, utc_now, keep, tell=progress).run()))


VERBS: tuple[Callable[..., None], ...] = (prune,)
