"""The verbs by which an operator looks after the service: prune, erase, doctor."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import logging as log
from app.cli.terminal import can_ask, check_schema, database_of, one_line, progress, read_settings
from app.errors import SettingsError
from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from app.db.engine import Database
    from app.domain.checks import Misconfigured

MOUNTS = Path("/proc/mounts")
_NO_DATABASE = frozenset(
    {"setting_wrong", "database_missing", "database_unreachable", "schema_outdated"}
)


def prune() -> None:
    """Remove raw webhook bodies that are older than KEEP_EVENTS_DAYS, now."""
    with one_line():
        settings = read_settings()
        check_schema(settings)
        asyncio.run(_prune(settings))


async def _prune(settings: Settings) -> None:
    from app.bootstrap import utc_now
    from app.worker.tasks.retention import Retention

    if not settings.keep_events_days:
        typer.echo("KEEP_EVENTS_DAYS is 0: everything is kept, nothing was removed")
        return
    keep = timedelta(days=settings.keep_events_days)
    with database_of(settings) as database:
        typer.echo(str(await Retention(database, utc_now, keep, tell=progress).run()))


def erase(
    company: Annotated[str, typer.Option(help="The company's id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove every trace of a company, and print a receipt. Delete it at Codat first."""
    if not yes and not can_ask():
        raise typer.BadParameter("there is nobody to ask: say --yes", param_hint="--yes")
    with one_line():
        settings = read_settings()
        check_schema(settings)
        _erase(settings, company, ask=not yes)


def _erase(settings: Settings, company: str, *, ask: bool) -> None:
    from app.bootstrap import utc_now
    from app.worker.erase import Eraser

    with database_of(settings) as database:
        eraser = Eraser(database, utc_now, tell=progress)
        eraser.require_known(company)
        if ask:
            question = f"Erase everything about company {company}? This cannot be undone."
            typer.confirm(question, abort=True, err=True)
        for line in eraser.erase(company).lines():
            typer.echo(line)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Examine settings, database, worker and Codat; name each thing that is wrong."""
    log.configure("error", "console")
    found = asyncio.run(_examine())
    if as_json:
        told = {"ok": not found, "findings": [asdict(each) for each in found]}
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        for each in found:
            typer.echo(f"{each.name}: {each.text}\n    → {each.do}")
        typer.echo(f"{len(found)} findings" if found else "nothing is wrong")
    raise typer.Exit(1 if found else 0)


async def _examine() -> "list[Misconfigured]":
    """Everything that can be examined, also where some settings cannot be read."""
    from app.worker.doctor import settings_wrong

    settings, refused = _readable_settings()
    wrong = {each.partition(":")[0] for each in refused.problems} if refused else set()
    found = settings_wrong(settings, refused)
    if "DATABASE_URL" not in wrong:
        found += await asyncio.to_thread(_database_wrong, settings)
    if settings.codat_api_key and "CODAT_BASE_URL" not in wrong:
        broken = "DATABASE_URL" in wrong or any(each.name in _NO_DATABASE for each in found)
        with nullcontext() if broken else database_of(settings) as database:
            found += await _codat_wrong(settings, database)
    return found


def _readable_settings() -> tuple[Settings, SettingsError | None]:
    """The settings, with the default in place of each that cannot be used; and what is wrong."""
    from app.clients import check_recipients
    from app.worker.tasks.reclassify import team_rules

    problems: list[str] = []
    try:
        settings = load_settings()
    except SettingsError as error:
        problems += error.problems
        settings = _with_defaults(problems)
    try:
        team_rules(settings.causes_file)
    except SettingsError as error:
        problems += error.problems
        settings = settings.model_copy(update={"causes_file": None})
    try:
        check_recipients(settings)
    except SettingsError as error:
        problems += error.problems
        settings = settings.model_copy(update={"notify_urls": ()})
    return settings, SettingsError(*problems) if problems else None


def _with_defaults(problems: Sequence[str]) -> Settings:
    """The settings without those that these problems name, and without who cannot do alone."""
    names = {each.partition(":")[0].lower() for each in problems}
    if "notify_signing_secret" in names:
        names |= {"notify_webhook_urls", "retry_webhook_url"}
    fields = Settings.model_fields
    return load_settings(**{name: fields[name].default for name in names if name in fields})


def _database_wrong(settings: Settings) -> "list[Misconfigured]":
    from app.bootstrap import utc_now
    from app.db.engine import sqlite_file
    from app.domain.checks import Misconfigured, place_wrong
    from app.worker.doctor import database_wrong

    try:
        file = sqlite_file(settings.database_url)
    except SettingsError as error:
        return [Misconfigured("setting_wrong", str(error), "correct it; see .env.example")]
    badly_placed = place_wrong(str(file), _mounts()) if file else None
    found = [badly_placed] if badly_placed else []
    if file and not file.exists():
        text = "there is no SQLite file where DATABASE_URL says"
        return [*found, Misconfigured("database_missing", text, "run `python -m app migrate`")]
    with database_of(settings) as database:
        return [*found, *database_wrong(database, utc_now())]


def _mounts() -> str:
    """The mounted file systems; nothing on a machine that does not list them."""
    with suppress(OSError):
        return MOUNTS.read_text(errors="replace")
    return ""


async def _codat_wrong(settings: Settings, database: "Database | None") -> "list[Misconfigured]":
    """Asks Codat, unless a database says that all calls must rest."""
    from app.bootstrap import utc_now
    from app.codat.asking import TimedCodat
    from app.worker.doctor import codat_wrong
    from app.worker.rate_limit import Gate

    key = settings.codat_api_key.get_secret_value() if settings.codat_api_key else ""
    gate = Gate(database, utc_now) if database else None
    async with TimedCodat(settings.codat_base_url, key, clock=utc_now, gate=gate) as codat:
        return await codat_wrong(codat, settings.host)


VERBS: tuple[Callable[..., None], ...] = (prune, erase, doctor)
