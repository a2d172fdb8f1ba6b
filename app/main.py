"""The wiring, and nothing else: which room gets which neighbour."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from app.codat.client import CodatClient
from app.codat.signature import Verifier
from app.settings import Settings, require
from app.storage import compare, store
from app.storage.database import Database, open_database
from app.storage.inbox import Inbox
from app.storage.recount import recount
from app.web import api, health, mirror, problems
from app.web.webhooks import Door
from app.work.duties import Duties, Duty
from app.work.fetch import Fetcher
from app.work.gate import Gate
from app.work.reconcile import COMPANIES_PER_PASS, Reconciler
from app.work.watch import Watch
from app.work.worker import Worker

TITLE = "Codat Sync for Expenses receiver"
VERSION = "0.1.0"


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


def check_settings(settings: Settings) -> Verifier:
    """The verifier, when all that serving needs is set; else raises SettingsError."""
    require(settings, "codat_webhook_secrets", "codat_api_key", "api_keys")
    return Verifier([secret.get_secret_value() for secret in settings.codat_webhook_secrets])


def make_codat(
    settings: Settings, database: Database, clock: Callable[[], datetime]
) -> CodatClient:
    """The client for Codat's API as the settings say; it rests while the gate is closed."""
    require(settings, "codat_api_key")
    key = settings.codat_api_key.get_secret_value() if settings.codat_api_key else ""
    return CodatClient(settings.codat_base_url, key, gate=Gate(database, clock))


def make_worker(
    settings: Settings, database: Database, codat: CodatClient, clock: Callable[[], datetime]
) -> Worker:
    """A worker with everything it needs."""
    fetcher = Fetcher(database, codat, settings.fetch_max_attempts, clock)
    duties = Duties(database, make_duties(settings, database, codat, clock), clock)
    return Worker(database, fetcher, clock=clock, duties=duties.run, on_beat=codat.share_limits)


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

    duties = [
        Duty("stuck", min(stuck_after, timedelta(minutes=1)), ask_about_stuck),
        Duty("recount", timedelta(days=1), count_anew),
    ]
    if settings.reconcile_every_minutes:
        every = timedelta(minutes=settings.reconcile_every_minutes)
        reconciler = Reconciler(
            database, codat, clock, stuck_after, most_companies=COMPANIES_PER_PASS
        )
        watch = Watch(database, codat, clock)
        duties += [Duty("reconcile", every, reconciler.run), Duty("watch", every, watch.run)]
    return duties


def _owe_stuck(database: Database, stuck_after: timedelta, clock: Callable[[], datetime]) -> int:
    now = clock()
    with database.writing() as connection:
        return compare.owe_stuck(connection, before=now - stuck_after, now=now)


def create_app(settings: Settings, *, clock: Callable[[], datetime] = utc_now) -> FastAPI:
    """The application. Raises SettingsError when something it needs is not set."""
    verifier = check_settings(settings)
    database = open_database(settings.database_url)
    registry = CollectorRegistry()
    running = Running()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with _alive(settings, database, running, clock):
            gc.collect()
            gc.freeze()  # start-up objects live for ever: collections need not walk them
            yield

    app = FastAPI(title=TITLE, version=VERSION, lifespan=lifespan, redirect_slashes=False)
    app.state.settings = settings
    app.state.database = database
    app.state.registry = registry
    app.state.owe = _owe(database, running, clock)
    app.add_middleware(
        Door,
        verifier=verifier,
        inbox=running.open_inbox,
        max_body_bytes=settings.max_body_bytes,
        clock=clock,
        registry=registry,
    )
    for part in (problems, health, api, mirror):
        part.install(app)
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
    settings: Settings, database: Database, running: Running, clock: Callable[[], datetime]
) -> AsyncIterator[None]:
    """The inbox, and the worker where it lives in this process, from start to clean end."""
    running.loop = asyncio.get_running_loop()
    running.inbox = Inbox(database, on_owed=running.wake)
    codat = make_codat(settings, database, clock)
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
