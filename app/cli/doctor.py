"""`doctor`: every misconfiguration is one named finding."""

import asyncio
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import logging as log
from app.cli.terminal import open_database
from app.errors import DatabaseUnusable, SettingsError
from app.settings import Settings, load_settings, setting_names

if TYPE_CHECKING:
    from app.db.engine import Database
    from app.domain.checks import Misconfiguration

MOUNTS = Path("/proc/mounts")
# Findings after which the rate-limit pause cannot be read from the database
_NO_DATABASE = frozenset(
    {"database_missing", "database_unreachable", "database_unusable", "schema_outdated"}
    | {"sqlite_old_wal"}
)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check settings, database, worker and Codat, and name each misconfiguration."""
    log.configure("error", "console")
    findings = asyncio.run(_check_all())
    if as_json:
        result = {"ok": not findings, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            typer.echo(f"{finding.name}: {finding.text}\n    → {finding.action}")
        typer.echo(f"Findings: {len(findings)}" if findings else "No problems found.")
    raise typer.Exit(1 if findings else 0)


async def _check_all() -> "list[Misconfiguration]":
    """Check what can be checked, even when some settings are unusable."""
    from app.worker.doctor import check_environment, check_settings

    settings, problems = _usable_settings()
    unusable = setting_names(problems)
    findings = [*check_settings(settings, problems), *check_environment(settings)]
    has_database = "database_url" not in unusable
    if has_database:
        found = await asyncio.to_thread(_check_database, settings)
        has_database = not any(finding.name in _NO_DATABASE for finding in found)
        findings += found
    if settings.codat_api_key and "codat_base_url" not in unusable:
        with open_database(settings) if has_database else nullcontext() as database:
            findings += await _check_codat(settings, database)
    return findings


def _usable_settings() -> tuple[Settings, list[str]]:
    """The settings, with defaults in place of those that are unusable; and the problems."""
    from app.bootstrap import make_channels, make_http
    from app.db.engine import sqlite_file
    from app.worker.tasks.reclassify import load_classifier

    uses: dict[str, Callable[[Settings], object]] = {
        "database_url": lambda settings: sqlite_file(settings.database_url),
        "causes_file": lambda settings: load_classifier(settings.causes_file),
        "notify_urls": lambda settings: make_channels(settings, make_http()),
    }
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    problems: list[str] = []
    try:
        settings = load_settings()
    except SettingsError as error:
        problems += error.problems
        usable = {name: defaults[name] for name in setting_names(problems)}
        has_file = not any(problem.startswith(".env ") for problem in problems)
        settings = load_settings(env_file=".env" if has_file else None, **usable)
    for name, use in uses.items():
        try:
            use(settings)
        except SettingsError as error:
            problems += error.problems
            settings = settings.model_copy(update={name: defaults[name]})
    return settings, problems


def _check_database(settings: Settings) -> "list[Misconfiguration]":
    from app.bootstrap import utc_now
    from app.db.engine import sqlite_file
    from app.domain.checks import check_sqlite_location
    from app.worker.doctor import check_database, check_sqlite_file, database_unusable

    file = sqlite_file(settings.database_url)
    findings = []
    if file:
        mounts = MOUNTS.read_text(errors="replace") if MOUNTS.exists() else ""
        found = (check_sqlite_location(str(file), mounts), check_sqlite_file(file))
        findings += [finding for finding in found if finding]
        if found[1]:  # opening the file could create it, or do damage
            return findings
    try:
        with open_database(settings) as database:
            return [*findings, *check_database(database, utc_now())]
    except DatabaseUnusable as error:
        return [*findings, database_unusable(error)]


async def _check_codat(settings: Settings, database: "Database | None") -> "list[Misconfiguration]":
    """Call Codat once, unless calls are paused by the rate limit."""
    from app.bootstrap import make_codat, utc_now
    from app.domain.webhook_loss import endpoint_url
    from app.worker.doctor import DOCTOR_TIMEOUT, check_codat

    async with make_codat(settings, database, utc_now, timeout=DOCTOR_TIMEOUT) as codat:
        ours = endpoint_url(settings.public_url, settings.root_path)
        return await check_codat(codat, settings.host, ours)
