"""Prometheus metrics: what this process counts, and capped numbers from the database.

The worker and the Codat client do not import Prometheus: `app.bootstrap` passes them methods of
`Metrics` as callables. A standalone worker has no `/metrics` and counts nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.db.engine import Database
from app.db.event_store import PendingStats
from app.db.jobs import JobStats
from app.db.queries.monitoring import Snapshot, take_snapshot
from app.errors import DatabaseUnavailable
from app.web.shared_call import SharedCall

DELIVERY_RESULTS = (
    "stored", "duplicate", "invalid_signature", "too_large", "content_encoding", "timeout",
    "unavailable", "disconnected", "wrong_path",
)  # fmt: skip
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
DATABASE_WITHIN_S = 3.0
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_COMMIT_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5)
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_CALL_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_UNKNOWN = float("nan")


class Metrics(Collector):
    """The metrics of one process. Methods that count are cheap and safe in any thread."""

    def __init__(self, registry: CollectorRegistry, *, secrets: int, version: str) -> None:
        """`secrets` is the number of webhook secrets, `version` that of the service."""
        self.registry = registry
        self._read_snapshot: SharedCall[Snapshot] | None = None
        self._snapshot: Snapshot | None = None
        self._clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._secrets_last_used: list[datetime | None] = [None] * secrets
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)

        gauge("build_info", "Version of the service.", ["version"]).labels(version).set(1)
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
        text = "Attempts of jobs by result."
        self._attempts = counter("job_attempts", text, ["kind", "result"])
        text = "Seconds per call to Codat's API, by result."
        self._codat_calls = histogram("codat_call_seconds", text, ["result"], buckets=_CALL_BUCKETS)
        text = "Calls to Codat that remain, as Codat reported last."
        self._quota = gauge("codat_quota_remaining", text)
        self._quota.set(_UNKNOWN)
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

    def job_attempt(self, kind: str, result: str) -> None:
        """Count an attempt of a job."""
        self._attempts.labels(kind, result).inc()

    def codat_call(self, result: str, seconds: float) -> None:
        """Record a call to Codat."""
        self._codat_calls.labels(result).observe(seconds)

    def quota(self, remaining: int) -> None:
        """Record how many calls Codat still allows."""
        self._quota.set(remaining)

    def record_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record an HTTP request. `route` is a template such as `/api/v1/syncs/{sync_id}`."""
        self._requests.labels(method if method in METHODS else "other", route, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    def watch_database(self, database: Database, clock: Callable[[], datetime]) -> None:
        """Show the state of this database at each scrape."""

        def read() -> Snapshot:
            with database.reading() as connection:
                return take_snapshot(connection, clock())

        self._clock = clock
        self._read_snapshot = SharedCall(read, DATABASE_WITHIN_S)

    async def render(self) -> bytes:
        """All metrics in Prometheus' text format. Those of a database that is down are NaN."""
        try:
            self._snapshot = await self._read_snapshot() if self._read_snapshot else None
        except (DatabaseUnavailable, TimeoutError):
            self._snapshot = None
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
_EMPTY = Snapshot(PendingStats(0, None), 0, _NO_JOBS, _NO_JOBS, 0, None, 0, None)


def _database_gauges(
    snapshot: Snapshot, now: datetime
) -> list[tuple[str, str, float | tuple[str, Mapping[str, float]]]]:
    """Name, help, and value of each gauge; or, as its value, a label and the numbers by label."""
    pending, messages = snapshot.pending_events, snapshot.message_jobs
    jobs = {"fetch": snapshot.fetch_jobs, "message": messages}
    due = {kind: stats.due for kind, stats in jobs.items()}
    oldest = {kind: _seconds(stats.oldest_run_at, now) for kind, stats in jobs.items()}
    dead = {kind: stats.dead for kind, stats in jobs.items()}
    by_state = {"pending": snapshot.pending_messages, "dead": messages.dead}
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
        ("alerts_open", "Open alerts, at most 10,000.", snapshot.open_alerts),
        ("worker_heartbeat_age_seconds", "Time since the last heartbeat of any worker.", heartbeat),
    ]  # fmt: skip


def _seconds(start: datetime | None, end: datetime | None, unknown: float = 0) -> float:
    """The seconds between two times, at least 0; `unknown` if one of them is."""
    return max(0.0, (end - start).total_seconds()) if start and end else unknown
