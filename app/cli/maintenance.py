"""The verbs for stored data: migrate, reconcile, redrive, rebuild, erase, prune, classify."""

import asyncio
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from app.cli.terminal import (
    one_line_errors,
    open_current_database,
    open_database,
    read_settings,
    report_progress,
)
from app.domain.causes.classifier import UNCLASSIFIED
from app.errors import ServiceError


def migrate(
    after_restore: Annotated[
        bool, typer.Option("--after-restore", help="Protect the change feed's cursors too.")
    ] = False,
) -> None:
    """Bring the database up to date. Safe to run twice, and from two hosts at the same time."""
    from app.db import change_feed, migrations

    with one_line_errors(), open_database(read_settings()) as database:
        before, after = migrations.migrate(database)
        if after_restore:
            with database.writing() as connection:
                change_feed.skip_lost_ids(connection)
    if before == after:
        typer.echo(f"Already up to date ({after}).")
    elif before is None:
        typer.echo(f"Created schema {after}.")
    else:
        typer.echo(f"Upgraded the schema from {before} to {after}.")
    if after_restore:
        typer.echo("Cursors of the change feed from before the restore stay valid.")


def reconcile(
    company: Annotated[str | None, typer.Option(help="One company's ID.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Ignore older syncs (UTC).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count differences only.")] = False,
) -> None:
    """Compare with Codat and queue what is missing or different. The worker then fetches it."""
    from app.bootstrap import make_codat, utc_now
    from app.worker.tasks.reconcile import Reconciler, ReconcileReport

    since = since.replace(tzinfo=since.tzinfo or UTC) if since else None
    with (
        one_line_errors(),
        open_current_database(settings := read_settings("codat_api_key")) as database,
    ):
        stuck_after = timedelta(minutes=settings.stuck_after_minutes)

        async def run() -> ReconcileReport:
            async with make_codat(settings, database, utc_now) as codat:
                reconciler = Reconciler(database, codat, utc_now, stuck_after, report_progress)
                return await reconciler.run(company_id=company, since=since, dry_run=dry_run)

        report = asyncio.run(run())
        typer.echo(f"Dry run, nothing was changed: {report}" if dry_run else str(report))
        if report.skipped:
            raise ServiceError("Some companies could not be read. Run the command again.")


def redrive(
    sync: Annotated[str | None, typer.Option(help="One sync's ID.")] = None,
    all_dead: Annotated[bool, typer.Option("--all-dead", help="All abandoned fetches.")] = False,
    messages: Annotated[bool, typer.Option("--messages", help="Abandoned messages.")] = False,
) -> None:
    """Retry fetches or outgoing messages that were abandoned."""
    if (sync is not None) + all_dead + messages != 1:
        raise typer.BadParameter("Choose one of: --sync ID, --all-dead, --messages.")
    from app.bootstrap import utc_now
    from app.db import jobs, outgoing
    from app.db.queries.syncs import get_sync

    with one_line_errors(), open_current_database(read_settings()) as database:
        with database.writing() as connection:
            if messages:
                count = outgoing.redrive(connection, now=utc_now())
            else:
                keys = None if sync is None else [get_sync(connection, sync).pk]
                count = jobs.revive_dead(connection, "fetch", keys, now=utc_now())
        typer.echo(f"Abandoned {'messages' if messages else 'fetches'} queued again: {count}")


def rebuild() -> None:
    """Recompute all derived data from the stored webhooks and Codat's stored answers.

    Calls nothing at Codat, reports what differed, and may run while the service runs.
    """
    from app.bootstrap import utc_now
    from app.worker.rebuild import Rebuilder

    with one_line_errors(), open_current_database(read_settings()) as database:
        typer.echo(str(Rebuilder(database, utc_now, report=report_progress).run()))


def erase(
    company: Annotated[str, typer.Option(help="The company's ID.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove every trace of a company and print a receipt. Delete the company at Codat first."""
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("No terminal to confirm; pass --yes.")
    from app.bootstrap import utc_now
    from app.worker.erase import Eraser

    with one_line_errors(), open_current_database(read_settings()) as database:
        eraser = Eraser(database, utc_now, report=report_progress)
        eraser.require_known(company)
        if not yes:
            question = f"Erase all data of company {company}? This cannot be undone."
            typer.confirm(question, abort=True, err=True)
        for line in eraser.erase(company).lines():
            typer.echo(line)


def prune() -> None:
    """Apply the retention of KEEP_EVENTS_DAYS and KEEP_CHANGES_DAYS now."""
    from app.bootstrap import make_retention, utc_now

    with one_line_errors(), open_current_database(settings := read_settings()) as database:
        retention = make_retention(settings, database, utc_now, report=report_progress)
        typer.echo(str(asyncio.run(retention.run())))


def classify(
    message: Annotated[
        str | None, typer.Argument(help="An error message from Codat.", metavar="MESSAGE")
    ] = None,
    file: Annotated[
        typer.FileText | None,
        typer.Option(
            help="A file with one message per line; - for stdin.",
            encoding="utf-8",
            errors="replace",
        ),
    ] = None,
) -> None:
    """Show the cause of a message, the rule that matched, and the message's fingerprint."""
    if (message is None) == (file is None):
        raise typer.BadParameter("Pass either MESSAGE or --file.")
    from app.worker.tasks.reclassify import load_classifier

    with one_line_errors():
        classifier = load_classifier(read_settings().causes_file)
    lines = [message or ""] if file is None else (line.strip() for line in file)
    causes: Counter[str] = Counter()
    fingerprints = set()
    for line in filter(None, lines):
        explanation = classifier.explain(line)
        cause = classifier.causes[explanation.cause or UNCLASSIFIED]
        causes[cause.key] += 1
        fingerprints.add(explanation.fingerprint)
        if file is not None:
            typer.echo(line)
        typer.echo(f"cause: {cause.key} ({cause.title})")
        typer.echo(f"rule: {explanation.rule or 'none matched'}")
        typer.echo(f"fingerprint: {explanation.fingerprint}")
    if file is not None:
        typer.echo(f"messages: {causes.total()}, with {len(fingerprints)} fingerprints")
        for key, count in causes.most_common():
            typer.echo(f"{count:>8} {key}")
