"""The composition root: the database, the clients, the worker and the application from settings.

The worker needs no web framework and the application may run without a worker, so each imports its
own part when it is made.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import httpx
from pydantic import SecretStr

from app import VERSION, logging
from app.codat.client import TIMEOUT, CodatClient
from app.codat.rate_limiter import CallLimits
from app.codat.transport import EnvironmentTransport
from app.db.engine import Database, open_database
from app.db.event_store import EventStore
from app.domain import outgoing
from app.domain.outgoing import recipient_name
from app.domain.webhook_loss import endpoint_url
from app.errors import SettingsError
from app.settings import REQUIRED, Settings, require, wants_traces
from app.worker.channels import Channel, NotificationChannel, WebhookChannel, label
from app.worker.codat_calls import InteractiveCalls, RateLimitPause
from app.worker.dispatcher import Dispatcher
from app.worker.doctor import check_codat
from app.worker.fetcher import Fetcher
from app.worker.projector import Projector
from app.worker.runner import Runner
from app.worker.scheduler import PeriodicTask
from app.worker.start_sync import SyncStarter
from app.worker.tasks import failure_alerts, reclassify, reconcile, retention
from app.worker.tasks.failure_alerts import check_failures
from app.worker.tasks.reclassify import Reclassifier, load_classifier
from app.worker.tasks.reconcile import Reconciler, enqueue_stuck
from app.worker.tasks.retention import Retention
from app.worker.tasks.webhook_monitor import check_webhooks

if TYPE_CHECKING:  # the worker runs without it
    from fastapi import FastAPI

    from app.tracing import Tracing
    from app.web.app import Application
    from app.web.metrics import WorkerMetrics

_log = logging.get(__name__)
Clock = Callable[[], datetime]
# A thread that projects events gives way to the event loop, which answers deliveries, this soon
SWITCH_INTERVAL_S = 0.0005
# As many fetches as may be recorded at a time, and as many others; the default is processors + 4
THREADS = 32
GC_THRESHOLD = 10_000  # objects; requests leave little behind that needs a collection


def utc_now() -> datetime:
    """The service's clock: aware, UTC."""
    return datetime.now(UTC)


def start_tracing(settings: Settings) -> "Tracing | None":
    """Start tracing if an `OTEL_…` variable asks for it; before engines and clients are made.

    Raises SettingsError.
    """
    if not wants_traces():
        return None
    try:
        from app.tracing import Tracing
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"OTEL_… variables ask for traces, and {error.name} is not installed. "
            "Install requirements-otel.txt, or set OTEL_SDK_DISABLED=true."
        ) from None
    return Tracing(settings.codat_base_url)


def make_database(settings: Settings) -> Database:
    """Open the database, with the classifier that its writers apply.

    Raises SettingsError for a DATABASE_URL or CAUSES_FILE that cannot be used.
    """
    classifier = load_classifier(settings.causes_file)
    return open_database(settings.database_url, classifier=classifier)


def make_codat(
    settings: Settings,
    database: Database | None,
    clock: Clock,
    *,
    metrics: "WorkerMetrics | None" = None,
    timeout: httpx.Timeout = TIMEOUT,
) -> CodatClient:
    """Make the client of Codat's API; with a database it observes the rate-limit pause."""
    require(settings, "codat_api_key")
    return CodatClient(
        settings.codat_base_url,
        _plain(settings.codat_api_key),
        clock=clock,
        timeout=timeout,
        limits=CallLimits(per_minute=settings.codat_calls_per_minute),
        before_call=RateLimitPause(database, clock) if database else None,
        on_call=metrics.codat_call if metrics else None,
        on_quota=metrics.quota if metrics else None,
    )


def make_http() -> httpx.AsyncClient:
    """Make the client for outgoing webhooks."""
    return httpx.AsyncClient(transport=EnvironmentTransport())


def warn_of_environment(settings: Settings) -> None:
    """Log why calls to Codat will fail, where the environment is the reason."""
    if problem := EnvironmentTransport().problem(settings.codat_base_url):
        _log.warning("calls to Codat will fail", reason=problem)


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def outgoing_addresses(settings: Settings) -> dict[str, tuple[outgoing.Channel, str]]:
    """The channel and the address of each recipient of outgoing messages, by its name."""
    retry_urls = (settings.retry_webhook_url,) if settings.retry_webhook_url else ()
    channels: dict[outgoing.Channel, tuple[SecretStr, ...]] = {
        "webhook": settings.notify_webhook_urls,
        "retry": retry_urls,
        "notification": settings.notify_urls,
    }
    addresses = [(channel, _plain(url)) for channel, urls in channels.items() for url in urls]
    return {recipient_name(channel, url): (channel, url) for channel, url in addresses}


def make_channels(settings: Settings, http: httpx.AsyncClient) -> dict[str, Channel]:
    """Make the channel of each recipient. Raises SettingsError for an unknown kind of address."""
    secrets = [_plain(secret) for secret in settings.notify_signing_secret]
    return {
        name: NotificationChannel(url)
        if channel == "notification"
        else WebhookChannel(http, url, secrets)
        for name, (channel, url) in outgoing_addresses(settings).items()
    }


def make_retention(
    settings: Settings,
    database: Database,
    clock: Clock,
    *,
    report: Callable[[str], None] = lambda _: None,
) -> Retention:
    """Make the retention task; 0 days are unlimited."""
    periods = (settings.keep_events_days, settings.keep_changes_days)
    keep_events, keep_changes = (timedelta(days=days) if days else None for days in periods)
    return Retention(database, clock, keep_events, keep_changes, report)


def make_periodic_tasks(
    settings: Settings, database: Database, codat: CodatClient, clock: Clock
) -> list[PeriodicTask]:
    """Make the periodic tasks of the workers."""
    stuck_after = timedelta(minutes=settings.stuck_after_minutes)
    stuck = partial(enqueue_stuck, database, clock, stuck_after)
    hosts = {
        name: label(channel, url) for name, (channel, url) in outgoing_addresses(settings).items()
    }
    alerts = partial(check_failures, database, clock, hosts)
    reclassifier = Reclassifier(database, clock)
    tasks = [
        PeriodicTask("stuck_syncs", min(stuck_after, reconcile.STUCK_EVERY), stuck),
        PeriodicTask("reclassify", reclassify.EVERY, reclassifier.run, reclassifier.may_run),
        PeriodicTask("failure_alerts", failure_alerts.EVERY, alerts),
        PeriodicTask("retention", retention.EVERY, make_retention(settings, database, clock).run),
    ]
    if settings.reconcile_every_minutes:
        every = timedelta(minutes=settings.reconcile_every_minutes)
        limit = reconcile.COMPANIES_PER_RUN
        reconciler = Reconciler(
            *(database, codat, clock, stuck_after),
            max_companies=limit,
            fully_every=reconcile.FULLY_EVERY,
        )
        ours = endpoint_url(settings.public_url, settings.root_path)
        monitor = partial(check_webhooks, database, codat, clock, ours)
        tasks += [
            PeriodicTask("reconcile", every, reconciler.run),
            PeriodicTask("webhook_monitor", every, monitor),
        ]
    return tasks


def make_runner(
    settings: Settings,
    database: Database,
    codat: CodatClient,
    http: httpx.AsyncClient,
    clock: Clock,
    *,
    metrics: "WorkerMetrics | None" = None,
    tracing: "Tracing | None" = None,
) -> Runner:
    """Make the worker. Raises SettingsError for an address in NOTIFY_URLS that is unknown."""
    channels = make_channels(settings, http)
    projector = Projector(database, clock)
    periodic_tasks = make_periodic_tasks(settings, database, codat, clock)
    if tracing:
        projector.trace = tracing.projection
        periodic_tasks = [tracing.trace_task(task) for task in periodic_tasks]
    return Runner(
        database,
        clock=clock,
        projector=projector,
        fetcher=Fetcher(database, codat, clock, max_attempts=settings.fetch_max_attempts),
        dispatcher=Dispatcher(database, channels, clock) if channels else None,
        periodic_tasks=periodic_tasks,
        on_heartbeat=codat.limits.share,
        on_attempt=metrics.job_attempt if metrics else None,
        trace_job=tracing.trace_job if tracing else None,
    )


@asynccontextmanager
async def open_worker(
    settings: Settings, database: Database, clock: Clock, tracing: "Tracing | None" = None
) -> AsyncIterator[Runner]:
    """Make the worker with its HTTP clients, and close these at the end of the block.

    With WORKER_METRICS_PORT, its metrics can be scraped there meanwhile. Raises ServiceError when
    that address cannot be used.
    """
    _use_more_threads()
    async with AsyncExitStack() as stack:
        metrics: WorkerMetrics | None = None
        if settings.worker_metrics_port is not None:
            metrics = _worker_metrics()
            stack.enter_context(metrics.served(settings.host, settings.worker_metrics_port))
        http = await stack.enter_async_context(httpx.AsyncClient())
        codat = make_codat(settings, database, clock, metrics=metrics)
        await stack.enter_async_context(codat)
        yield make_runner(settings, database, codat, http, clock, metrics=metrics, tracing=tracing)


def _worker_metrics() -> "WorkerMetrics":
    from prometheus_client import CollectorRegistry

    from app.web.metrics import WorkerMetrics

    return WorkerMetrics(CollectorRegistry(), version=VERSION)


def create_app(
    settings: Settings, *, clock: Clock = utc_now, tracing: "Tracing | None" = None
) -> "Application":
    """Make the application, with the worker if WORKER_IN_WEB is set. Raises SettingsError."""
    from prometheus_client import CollectorRegistry

    from app.codat.webhooks.signature import Verifier
    from app.web import app as web
    from app.web.metrics import Metrics

    require(settings, *REQUIRED)
    verifier = Verifier([_plain(secret) for secret in settings.codat_webhook_secrets])
    database = make_database(settings)
    secrets = len(settings.codat_webhook_secrets)
    metrics = Metrics(CollectorRegistry(), secrets=secrets, version=VERSION)
    metrics.watch_database(database, clock)
    codat = make_codat(settings, database, clock, metrics=metrics)
    warn_of_environment(settings)
    http = make_http()
    runner = None
    if settings.worker_in_web:
        options = (settings, database, codat, http, clock)
        runner = make_runner(*options, metrics=metrics, tracing=tracing)
    wake_worker = runner.wake if runner else lambda: None
    store = EventStore(database, on_stored=wake_worker, on_batch=metrics.batch)

    @asynccontextmanager
    async def lifespan(_app: "FastAPI") -> AsyncIterator[None]:
        _use_more_threads()
        async with AsyncExitStack() as stack:
            stack.callback(database.close)
            stack.push_async_callback(http.aclose)
            stack.push_async_callback(codat.close)
            stack.push_async_callback(store.close)
            if runner:
                await stack.enter_async_context(_running(runner))
            _tune_interpreter()
            yield

    services = web.Services(
        settings=settings,
        database=database,
        clock=clock,
        metrics=metrics,
        codat=codat,
        interactive_calls=InteractiveCalls(database, clock),
        check_codat=partial(
            check_codat, codat, settings.host, endpoint_url(settings.public_url, settings.root_path)
        ),
        sync_starter=SyncStarter(database, codat, clock),
        wake_worker=wake_worker,
    )
    app = web.create_app(
        services,
        verifier=verifier,
        event_store=lambda: store,
        lifespan=lifespan,
        telemetry=tracing.telemetry() if tracing else None,
    )
    if tracing and app.front:
        app.front = tracing.trace_deliveries(app.front)
    return app


@asynccontextmanager
async def _running(runner: Runner) -> AsyncIterator[None]:
    """Run the worker during the block, and stop it in an orderly way."""
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        runner.stop()
        await task


def _use_more_threads() -> None:
    """Let the projector find a thread while all that record fetches wait for the database."""
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="worker")
    asyncio.get_running_loop().set_default_executor(threads)


def _tune_interpreter() -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.set_threshold(GC_THRESHOLD)
    gc.freeze()  # collections need not walk the objects of the start
