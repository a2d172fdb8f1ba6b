"""Prometheus metrics: what this process counts, and capped numbers from the database.

The worker and the Codat client do not import Prometheus: `app.bootstrap` passes them methods of
`WorkerMetrics` as callables. `serve` answers `/metrics` with `Metrics`; a standalone worker serves
`WorkerMetrics` on a port of its own.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import product
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.codat.client import CallResult
from app.db.engine import Database
from app.db.event_store import PendingStats
from app.db.jobs import JobStats, Kind
from app.db.queries.monitoring import Snapshot, take_snapshot
from app.errors import DatabaseUnavailable, ServiceError
from app.web.shared_call import SharedCall

DELIVERY_RESULTS = (
    "stored", "duplicate", "invalid_signature", "too_large", "content_encoding", "timeout",
    "unavailable", "disconnected", "wrong_path",
)  # fmt: skip
ATTEMPT_RESULTS = ("done", "retry", "paused", "dead", "lost", "error")  # of `worker.job_pool`
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
DATABASE_WITHIN_S = 3.0
DATABASE_CACHED_S = 3.0
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_COMMIT_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5)
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_CALL_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_UNKNOWN = float("nan")


class WorkerMetrics:
    """What a worker counts. Methods that count are cheap and safe in any thread."""

    def __init__(self, registry: CollectorRegistry, *, version: str) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        text = "Version of the service."
        Gauge("build_info", text, ["version"], registry=registry).labels(version).set(1)
        text = "Attempts of jobs by result."
        attempts = Counter("job_attempts", text, ["kind", "result"], registry=registry)
        self._attempts = {
            key: attempts.labels(*key) for key in product(get_args(Kind), ATTEMPT_RESULTS)
        }
        calls = Histogram(
            "codat_call_seconds",
            "Seconds per call to Codat's API, by result.",
            ["result"],
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self._codat_calls = {result: calls.labels(result) for result in get_args(CallResult)}
        text = "Calls to Codat that remain, as Codat reported last to this process."
        self._quota = Gauge("codat_quota_remaining", text, registry=registry)
        self._quota.set(_UNKNOWN)

    def job_attempt(self, kind: str, result: str) -> None:
        """Count an attempt of a job. `result` is one of ATTEMPT_RESULTS."""
        self._attempts[kind, result].inc()

    def codat_call(self, result: CallResult, seconds: float) -> None:
        """Record a call to Codat."""
        self._codat_calls[result].observe(seconds)

    def quota(self, remaining: int) -> None:
        """Record how many calls Codat still allows."""
        self._quota.set(remaining)

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[None]:
        """Answer scrapes on this address during the block. Raises ServiceError."""
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            place = f"{host}:{port} (HOST and WORKER_METRICS_PORT)"
            raise ServiceError(f"cannot listen on {place}: {error.strerror}") from error
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class Metrics(WorkerMetrics, Collector):
    """The metrics of a web server, with those of the worker that may be part of it."""

    def __init__(self, registry: CollectorRegistry, *, secrets: int, version: str) -> None:
        """`secrets` is the number of webhook secrets, `version` that of the service."""
        super().__init__(registry, version=version)
        self._read_snapshot: SharedCall[Snapshot] | None = None
        self._snapshot: Snapshot | None = None
        self._snapshot_until = float("-inf")
        self._clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._monotonic = time.monotonic
        self._secrets_last_used: list[datetime | None] = [None] * secrets
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)

        deliveries = counter("webhook_deliveries", "Webhook deliveries by result.", ["result"])
        self._deliveries = {result: deliveries.labels(result) for result in DELIVERY_RESULTS}
        text = "Deliveries by the secret that verified them."
        matches = counter("webhook_secret_matches", text, ["index"])
        self._secret_matches = [matches.labels(index) for index in range(secrets)]
        text = "When a secret last verified a delivery. 0: not since the start."
        last_used = gauge("webhook_secret_last_used_timestamp_seconds", text, ["index"])
        self._secret_last_used = [last_used.labels(index) for index in range(secrets)]
        text = "Webhook events per commit."
        self._batch_rows = histogram("webhook_batch_rows", text, buckets=_BATCH_BUCKETS)
        text = "Seconds to store and commit a batch of webhook events."
        self._batch_seconds = histogram("webhook_commit_seconds", text, buckets=_COMMIT_BUCKETS)
        text = "HTTP requests by method, route and status, without webhook deliveries."
        self._requests = counter("http_requests", text, ["method", "route", "status"])
        text = "Seconds until a response starts."
        self._request_seconds = histogram(
            "http_request_seconds", text, ["route"], buckets=_REQUEST_BUCKETS
        )
        registry.register(self)

    def delivery(self, result: str) -> None:
        """Count a webhook delivery. `result` is one of DELIVERY_RESULTS."""
        self._deliveries[result].inc()

    def secret_matched(self, index: int, at: datetime) -> None:
        """Count a delivery that the secret at this position of the setting verified."""
        self._secret_matches[index].inc()
        self._secret_last_used[index].set(at.timestamp())
        self._secrets_last_used[index] = at

    def secrets_last_used(self) -> list[datetime | None]:
        """When each secret last verified a delivery to this process."""
        return list(self._secrets_last_used)

    def batch(self, rows: int, seconds: float) -> None:
        """Record a commit of webhook events."""
        self._batch_rows.observe(rows)
        self._batch_seconds.observe(seconds)

    def record_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record an HTTP request. `route` is a template such as `/api/v1/syncs/{sync_id}`."""
        self._requests.labels(method if method in METHODS else "other", route, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    def watch_database(
        self,
        database: Database,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show the state of this database, read at most every DATABASE_CACHED_S."""

        def read() -> Snapshot:
            with database.reading() as connection:
                return take_snapshot(connection, clock())

        self._clock = clock
        self._monotonic = monotonic
        self._read_snapshot = SharedCall(read, DATABASE_WITHIN_S)
        self._snapshot_until = float("-inf")

    async def render(self) -> bytes:
        """All metrics in Prometheus' text format. Those of a database that is down are NaN."""
        if self._read_snapshot and self._monotonic() >= self._snapshot_until:
            try:
                self._snapshot = await self._read_snapshot()
            except (DatabaseUnavailable, TimeoutError):
                self._snapshot = None
            self._snapshot_until = self._monotonic() + DATABASE_CACHED_S
        return generate_latest(self.registry)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The numbers from the database, as of the latest snapshot."""
        is_up = self._snapshot is not None
        yield GaugeMetricFamily("database_up", "1 if the database answered this scrape.", is_up)
        for name, text, value in _database_gauges(self._snapshot or _EMPTY, self._clock()):
            if isinstance(value, float | int):
                yield GaugeMetricFamily(name, text, value if is_up else _UNKNOWN)
                continue
            label, numbers = value
            family = GaugeMetricFamily(name, text, labels=[label])
            for key in numbers if is_up else ():
                family.add_metric([key], numbers[key])
            yield family


_NO_JOBS = JobStats(due=0, oldest_run_at=None, dead=0)
_EMPTY = Snapshot(PendingStats(0, None), 0, _NO_JOBS, _NO_JOBS, 0, 0, None, {}, None, 0)


def _database_gauges(
    snapshot: Snapshot, now: datetime
) -> list[tuple[str, str, float | tuple[str, Mapping[str, float]]]]:
    """Name, help, and value of each gauge; or, as its value, a label and the numbers by label."""
    pending, messages = snapshot.pending_events, snapshot.message_jobs
    jobs = {"fetch": snapshot.fetch_jobs, "message": messages}
    due = {kind: stats.due for kind, stats in jobs.items()}
    oldest = {kind: _seconds(stats.oldest_run_at, now) for kind, stats in jobs.items()}
    dead = {kind: stats.dead for kind, stats in jobs.items()}
    by_state = {
        "unaddressed": snapshot.unaddressed_messages,
        "pending": snapshot.pending_messages,
        "dead": messages.dead,
    }
    pending_age = _seconds(pending.oldest_received_at, now)
    pause = _seconds(now, snapshot.paused_until)
    heartbeat = _seconds(snapshot.worker_seen_at, now, _UNKNOWN)
    return [
        ("webhook_events_pending", "Events to project, at most 100,000.", pending.count),
        ("webhook_events_oldest_pending_seconds", "Age of the oldest event to project.",
         pending_age),
        ("webhook_events_projection_errors", "Events that could not be applied, at most 10,000.",
         snapshot.projection_errors),
        ("jobs_due", "Jobs due, at most 100,000.", ("kind", due)),
        ("jobs_oldest_due_seconds", "How long a job has been due.", ("kind", oldest)),
        ("jobs_dead", "Jobs that are no longer attempted.", ("kind", dead)),
        ("outgoing_messages", "Undelivered outgoing messages.", ("state", by_state)),
        ("codat_rate_limit_pause_seconds", "Remaining pause of all calls to Codat.", pause),
        ("alerts_open", "Open alerts by cause, at most 10,000.", ("cause", snapshot.open_alerts)),
        ("workers_alive", "Workers with a heartbeat in the last minute.", snapshot.workers_alive),
        ("worker_heartbeat_age_seconds", "Time since the last heartbeat of any worker.", heartbeat),
    ]  # fmt: skip


def _seconds(start: datetime | None, end: datetime | None, unknown: float = 0) -> float:
    """The seconds between two times, at least 0; `unknown` if one of them is."""
    return max(0.0, (end - start).total_seconds()) if start and end else unknown
