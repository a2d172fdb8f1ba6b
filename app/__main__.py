"""The command line: `python -m app VERB`. Exit codes: 0 done, 1 failed, 2 wrong use."""

import asyncio
import gc
import signal
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from app import logging as log
from app.cli import maintenance as upkeep
from app.cli.terminal import check_schema, database_of, one_line, progress, read_settings
from app.errors import ServiceError
from app.settings import Settings, load_settings, require

cli = typer.Typer(
    name="app",
    help="Receives Codat's Sync for Expenses webhooks and knows the error of every failed item.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in upkeep.VERBS:
    cli.command()(verb)


class Shape(StrEnum):
    """The two generations of Codat's webhook bodies."""

    legacy = "legacy"
    new = "new"


@cli.command()
def serve() -> None:
    """Serve: Codat's door, the API, health; and the worker unless WORKER_IN_WEB is false."""
    from app.cli import serve as serving

    with one_line():
        serving.serve(read_settings())


@cli.command()
def worker() -> None:
    """Carry out what is owed, without serving."""
    with one_line():
        settings = read_settings()
        check_schema(settings)
        asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    from app.bootstrap import make_worker, utc_now
    from app.clients import make_codat
    from app.web.shutdown import end_for_certain

    with database_of(settings) as database:
        async with make_codat(settings, database, utc_now) as codat:
            ours = make_worker(settings, database, codat, utc_now)

            def stop() -> None:
                end_for_certain()
                ours.stop()

            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop)
            gc.collect()
            gc.freeze()  # as the service does: no fetch's collections walk what lives for ever
            await ours.run()


@cli.command()
def migrate() -> None:
    """Bring the database up to date. Safe to run twice, and from two hosts at once."""
    with one_line():
        _migrate(read_settings())


def _migrate(settings: Settings, tell: Callable[[str], None] = typer.echo) -> None:
    from app.db import migrations as schema

    with database_of(settings) as database:
        before, after = schema.migrate(database)
    tell(f"schema {after}: " + ("was up to date" if before == after else f"was {before}"))


@cli.command()
def demo(port: Annotated[int, typer.Option(help="First port to try.")] = 8000) -> None:
    """The whole service on SQLite with a simulated Codat; nothing else is needed."""
    from app.cli import demo as scene
    from app.cli import serve as serving

    with one_line(), scene.demo_folder() as folder:
        ours = scene.free_port(port)
        settings = scene.demo_settings(folder, ours, scene.free_port(ours + 1))
        log.configure(settings.log_level, "console")
        _migrate(settings, tell=lambda _: None)
        with scene.simulated_codat(settings):
            serving.serve(settings, ready=lambda: typer.echo(scene.greeting(settings)))


@cli.command()
def send(
    event: Annotated[str, typer.Argument(help="SyncStarted, SyncFailed, SyncCompleted …")],
    to: Annotated[str | None, typer.Option(help="Address to post to.")] = None,
    secret: Annotated[str | None, typer.Option(help="whsec_… to sign with.")] = None,
    sync: Annotated[str | None, typer.Option(help="Sync id; a new one by default.")] = None,
    company: Annotated[str | None, typer.Option(help="Company id; a new one by default.")] = None,
    shape: Annotated[Shape | None, typer.Option(help="Generation of the body.")] = None,
) -> None:
    """Post one signed sample event, as Codat would."""
    from app.codat.webhooks import samples as sender

    meaning = sender.meaning(event)
    if meaning is None:
        raise typer.BadParameter(f"{event!r} is no sync event", param_hint="EVENT")
    if shape is Shape.new and meaning == "started":
        raise typer.BadParameter("there is no started event in the new shape", param_hint="EVENT")
    with one_line():
        _send(meaning, to, secret, sync, company, shape)


def _send(
    meaning: str,
    to: str | None,
    secret: str | None,
    sync: str | None,
    company: str | None,
    shape: Shape | None,
) -> None:
    import httpx

    from app.bootstrap import utc_now
    from app.codat.webhooks import samples as sender

    settings = load_settings()
    if not secret:
        require(settings, "codat_webhook_secrets")
        secret = settings.codat_webhook_secrets[0].get_secret_value()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = to or f"http://{host}:{settings.port}/webhooks/codat"
    company_id, sync_id = company or str(uuid.uuid4()), sync or str(uuid.uuid4())
    now = utc_now()
    body = sender.sample(
        meaning,
        company_id=company_id,
        sync_id=sync_id,
        now=now,
        shape=shape.value if shape else None,
    )
    try:
        content, headers = sender.signed(body, secret, now)
    except Exception:
        raise ServiceError("the secret cannot sign: it must be whsec_ and base64") from None
    try:
        answer = httpx.post(address, content=content, headers=headers, timeout=20)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceError(f"{address} cannot be reached: {error}") from None
    typer.echo(f"{answer.status_code} company={company_id} sync={sync_id} {headers['webhook-id']}")
    if not answer.is_success:
        raise ServiceError(f"the receiver answered {answer.status_code}")


@cli.command()
def reconcile(
    company: Annotated[str | None, typer.Option(help="One company's id.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Leave older syncs alone (UTC).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
) -> None:
    """Ask Codat what it knows, and mend what differs. The worker then fetches what is owed."""
    with one_line():
        settings = read_settings()
        check_schema(settings)
        asyncio.run(_reconcile(settings, company, since, dry_run))


async def _reconcile(
    settings: Settings, company: str | None, since: datetime | None, dry_run: bool
) -> None:
    from app.bootstrap import utc_now
    from app.clients import make_codat
    from app.db.recount import recount
    from app.worker.connections import NotingConnections
    from app.worker.tasks.reconcile import Reconciler

    stuck_after = timedelta(minutes=settings.stuck_after_minutes)
    with database_of(settings) as database:
        async with make_codat(settings, database, utc_now) as codat:
            lists = codat if dry_run else NotingConnections(database, codat, utc_now)
            ours = Reconciler(database, lists, utc_now, stuck_after, tell=progress)
            report = await ours.run(
                company_id=company,
                since=since.replace(tzinfo=since.tzinfo or UTC) if since else None,
                dry_run=dry_run,
            )
        if not dry_run:
            recount(database)
    typer.echo(("would mend: " if dry_run else "") + str(report))
    if report.skipped:
        raise ServiceError("some companies could not be read; run it again")


@cli.command()
def redrive(
    sync: Annotated[str | None, typer.Option(help="One sync's id.")] = None,
    all_dead: Annotated[bool, typer.Option("--all-dead", help="Every given-up fetch.")] = False,
    messages: Annotated[bool, typer.Option("--messages", help="Undelivered messages.")] = False,
) -> None:
    """Put given-up fetches, or given-up messages, back to work."""
    if (sync is not None) + all_dead + messages != 1:
        raise typer.BadParameter("say one of --sync ID, --all-dead, --messages")
    with one_line():
        settings = read_settings()
        check_schema(settings)
        _redrive(settings, sync, messages)


def _redrive(settings: Settings, sync: str | None, messages: bool) -> None:
    from app.bootstrap import utc_now
    from app.db import jobs as owed
    from app.db import outgoing

    with database_of(settings) as database, database.writing() as connection:
        if messages:
            typer.echo(f"given-up messages due again: {outgoing.redrive(connection, utc_now())}")
            return
        count = owed.redrive(connection, sync_id=sync, now=utc_now())
    typer.echo(f"{count} given-up {'fetch is' if count == 1 else 'fetches are'} due again")


if __name__ == "__main__":
    sys.exit(cli())
