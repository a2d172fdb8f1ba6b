"""The wiring, and nothing else: which room gets which neighbour."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import httpx

from app.clients import address_names, check_recipients, make_codat, make_senders, open_for
from app.codat.client import CodatClient
from app.db import reconciliation as compare
from app.db import statistics
from app.db import sync_writer as store
from app.db.engine import Database
from app.db.event_store import LANES, Inbox
from app.db.recount import recount
from app.settings import Settings, require
from app.worker.bookkeeping import Bookkeeper
from app.worker.connections import NotingConnections
from app.worker.dispatcher import Notifier
from app.worker.fetcher import Fetcher
from app.worker.replay import Replayer
from app.worker.runner import Worker
from app.worker.scheduler import Duties, Duty
from app.worker.start_sync import Starter
from app.worker.tasks import retention
from app.worker.tasks.failure_alerts import LOOK_EVERY, Failures
from app.worker.tasks.reclassify import Reclassifier
from app.worker.tasks.reconcile import COMPANIES_PER_PASS, Reconciler
from app.worker.tasks.retention import Retention
from app.worker.tasks.webhook_monitor import Watch
from app.worker.user_calls import Asking

if TYPE_CHECKING:  # the worker is wired here too, and needs no web framework
    from fastapi import FastAPI

    from app.codat.webhooks.signature import Verifier

TITLE = "Codat Sync for Expenses receiver"
VERSION = "0.1.0"
SWITCH_S = 0.0005
MOST_UNLOOKED = 10_000  # objects; what requests leave behind needs no collection at all


def utc_now() -> datetime:
    """The clock of the service: aware, UTC."""
    return datetime.now(UTC)


@dataclass
class Running:
    """What lives as long as the process serves."""

    inbox: Inbox | None = None
    worker: Worker | None = None
    loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)

    def wake(self) -> None:
        """Tell the worker of this process, if there is one, that a fetch is owed."""
        if self.worker and self.loop:
            self.loop.call_soon_threadsafe(self.worker.wake)

    def open_inbox(self) -> Inbox:
        """The inbox, which exists once the application has started."""
        if self.inbox is None:
            raise RuntimeError("the application has not been started")
        return self.inbox


def check_settings(settings: Settings) -> "Verifier":
    """The verifier, when all that serving needs is set; else raises SettingsError."""
    from app.codat.webhooks.signature import Verifier

    require(settings, "codat_webhook_secrets", "codat_api_key", "api_keys")
    secrets = [secret.get_secret_value() for secret in settings.codat_webhook_secrets]
    return Verifier(secrets)


def make_worker(
    settings: Settings, database: Database, codat: CodatClient, clock: Callable[[], datetime]
) -> Worker:
    """A worker with everything it needs."""
    fetcher = Fetcher(database, codat, settings.fetch_max_attempts, clock)
    duties = Duties(database, make_duties(settings, database, codat, clock), clock)
    http = httpx.AsyncClient()
    senders = make_senders(settings, http)

    async def beside() -> None:
        async with http:
            notifier = Notifier(database, senders, clock)
            telling = [notifier.run()] if senders else []
            await asyncio.gather(duties.run(), Bookkeeper(database).run(), *telling)

    return Worker(database, fetcher, clock=clock, duties=beside, on_beat=codat.share_limits)


def make_duties(
    settings: Settings, database: Database, codat: CodatClient, clock: Callable[[], datetime]
) -> list[Duty]:
    """What a worker does from time to time."""
    stuck_after = timedelta(minutes=settings.stuck_after_minutes)

    async def ask_about_stuck() -> int:
        return await asyncio.to_thread(_owe_stuck, database, stuck_after, clock)

    async def count_anew() -> str:
        wrong = await asyncio.to_thread(recount, database)
        return f"{wrong} counters were wrong"

    async def look_over() -> bool:
        return await asyncio.to_thread(statistics.look_over, database)

    minute = timedelta(minutes=1)
    failures = Failures(database, clock, frozenset(address_names(settings)))
    duties = [
        Duty("stuck", min(stuck_after, minute), ask_about_stuck),
        Duty("causes", minute, Reclassifier(database).run),
        Duty("recount", timedelta(days=1), count_anew),
        Duty("failures", LOOK_EVERY, failures.run),
    ]
    if database.is_sqlite:
        duties.append(Duty("statistics", statistics.EVERY, look_over))
    if settings.reconcile_every_minutes:
        every = timedelta(minutes=settings.reconcile_every_minutes)
        lists = NotingConnections(database, codat, clock)
        reconciler = Reconciler(
            database, lists, clock, stuck_after, most_companies=COMPANIES_PER_PASS
        )
        watch = Watch(database, codat, clock)
        duties += [Duty("reconcile", every, reconciler.run), Duty("watch", every, watch.run)]
    if settings.keep_events_days:
        keep = timedelta(days=settings.keep_events_days)
        duties.append(Duty("prune", retention.EVERY, Retention(database, clock, keep).run))
    return duties


def _owe_stuck(database: Database, stuck_after: timedelta, clock: Callable[[], datetime]) -> int:
    now = clock()
    with database.writing() as connection:
        return compare.owe_stuck(connection, before=now - stuck_after, now=now)


def create_app(settings: Settings, *, clock: Callable[[], datetime] = utc_now) -> "FastAPI":
    """The application. Raises SettingsError when something it needs is not set."""
    from prometheus_client import CollectorRegistry

    from app.web import api_docs as docs
    from app.web import health, problems
    from app.web import openapi as described
    from app.web.api import router as api
    from app.web.app import Service
    from app.web.codat_api import routes as mirror
    from app.web.metrics import Counted
    from app.web.pages import router as pages
    from app.web.webhooks import Door

    verifier = check_settings(settings)
    if settings.worker_in_web:
        check_recipients(settings)
    database = open_for(settings)
    codat = make_codat(settings, database, clock)
    registry = CollectorRegistry()
    counted = Counted(len(settings.codat_webhook_secrets), registry, settings.serving_processes)
    running = Running()

    @asynccontextmanager
    async def lifespan(_app: "FastAPI") -> AsyncIterator[None]:
        async with _alive(settings, database, codat, running, clock):
            # the inbox's thread waits for the database often; its turn must come soon after
            sys.setswitchinterval(SWITCH_S)
            gc.collect()
            gc.set_threshold(MOST_UNLOOKED)
            gc.freeze()  # start-up objects live for ever: collections need not walk them
            yield

    app = Service(
        title=TITLE,
        version=VERSION,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # `web.docs` has it written once,
        docs_url=None,  # and a page that loads nothing from elsewhere
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.database = database
    app.state.registry = registry
    app.state.counted = counted
    app.state.since = clock()
    app.state.clock = clock
    app.state.owe = _owe(database, running, clock)
    app.state.codat = codat
    app.state.asking = Asking(database, clock)
    app.state.replayer = Replayer(database, clock, running.wake)
    app.state.starter = Starter(database, codat, clock)
    for part in (problems, health, api, mirror, pages, described, docs):
        part.install(app)
    door = partial(
        Door,
        verifier=verifier,
        inbox=running.open_inbox,
        max_body_bytes=settings.max_body_bytes,
        clock=clock,
        counted=counted,
    )
    app.stand_behind(door)
    return app


def _owe(
    database: Database, running: Running, clock: Callable[[], datetime]
) -> Callable[[str | None, str], bool]:
    def owe(company_id: str | None, sync_id: str) -> bool:
        with database.writing() as connection:
            known = store.refresh(connection, sync_id, company_id, clock())
        running.wake()
        return known

    return owe


@asynccontextmanager
async def _alive(
    settings: Settings,
    database: Database,
    codat: CodatClient,
    running: Running,
    clock: Callable[[], datetime],
) -> AsyncIterator[None]:
    """The inbox, and the worker where it lives in this process, from start to clean end."""
    running.loop = asyncio.get_running_loop()
    lanes = LANES if settings.serving_processes == 1 else 1  # several processes are lanes enough
    running.inbox = Inbox(database, on_owed=running.wake, lanes=lanes)
    work = None
    if settings.worker_in_web:
        running.worker = make_worker(settings, database, codat, clock)
        work = asyncio.create_task(running.worker.run())
    try:
        yield
    finally:
        if running.worker and work:
            running.worker.stop()
            await work
        await running.inbox.close()
        await codat.close()
        database.close()
