"""Prometheus metrics: what this process counts, and capped numbers from the database.

The worker and the Codat client do not know Prometheus: `app.bootstrap` passes them methods of
`Metrics` as callables. A standalone worker has no `/metrics` and counts nothing.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app.db.engine import Database
from app.db.queries.monitoring import Snapshot, take_snapshot
from app.errors import DatabaseUnavailable
from app.web.shared_call import SharedCall

DELIVERY_RESULTS = (
    "stored",
    "duplicate",
    "invalid_signature",
    "too_large",
    "timeout",
    "unavailable",
    "disconnected",
)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
DATABASE_WITHIN_S = 3.0
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_COMMIT_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5)
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_CALL_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_UNKNOWN = float("nan")


class Metrics:
    """The metrics of one process. Methods that count are cheap and safe in any thread."""

    def __init__(self, registry: CollectorRegistry, *, secrets: int, version: str) -> None:
        """`secrets` is the number of webhook secrets, `version` that of the service."""
        self.registry = registry
        self._snapshot: SharedCall[Snapshot] | None = None
        self._clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._secrets_last_used: list[datetime | None] = [None] * secrets
        Gauge("build_info", "Version of the service.", ["version"], registry=registry).labels(
            version
        ).set(1)
        self._add_counters(registry, secrets)
        self._add_database_gauges(registry)

    def _add_counters(self, registry: CollectorRegistry, secrets: int) -> None:
        deliveries = Counter(
            "webhook_deliveries", "Webhook deliveries by result.", ["result"], registry=registry
        )
        self._deliveries = {result: deliveries.labels(result) for result in DELIVERY_RESULTS}
        matches = Counter(
            "webhook_secret_matches",
            "Deliveries by the secret that verified them.",
            ["index"],
            registry=registry,
        )
        last_used = Gauge(
            "webhook_secret_last_used_timestamp_seconds",
            "When a secret last verified a delivery. 0: not since the start.",
            ["index"],
            registry=registry,
        )
        self._secret_matches = [matches.labels(index) for index in range(secrets)]
        self._secret_last_used = [last_used.labels(index) for index in range(secrets)]
        self._batch_rows = Histogram(
            "webhook_batch_rows",
            "Webhook events per commit.",
            buckets=_BATCH_BUCKETS,
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "webhook_commit_seconds",
            "Seconds to store and commit a batch of webhook events.",
            buckets=_COMMIT_BUCKETS,
            registry=registry,
        )
        self._attempts = Counter(
            "job_attempts", "Attempts of jobs by result.", ["kind", "result"], registry=registry
        )
        self._codat_calls = Histogram(
            "codat_call_seconds",
            "Seconds per call to Codat's API, by result.",
            ["result"],
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self._quota = Gauge(
            "codat_quota_remaining",
            "Calls to Codat that remain, as Codat reported last.",
            registry=registry,
        )
        self._quota.set(_UNKNOWN)
        self._requests = Counter(
            "http_requests",
            "HTTP requests by method, route and status, without webhook deliveries.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "http_request_seconds",
            "Seconds until a response starts.",
            ["route"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )

    def _add_database_gauges(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self._database_up = gauge("database_up", "1 if the database answered this scrape.")
        self._pending = gauge("webhook_events_pending", "Events to project, at most 100,000.")
        self._pending_age = gauge(
            "webhook_events_oldest_pending_seconds", "Age of the oldest event to project."
        )
        self._projection_errors = gauge(
            "webhook_events_projection_errors", "Events that could not be applied, at most 10,000."
        )
        self._jobs_due = gauge("jobs_due", "Jobs due, at most 100,000.", "kind")
        self._jobs_age = gauge("jobs_oldest_due_seconds", "How long a job has been due.", "kind")
        self._jobs_dead = gauge("jobs_dead", "Jobs that are no longer attempted.", "kind")
        self._messages = gauge(
            "outgoing_messages", "Outgoing messages to deliver, and given up.", "state"
        )
        self._pause = gauge(
            "codat_rate_limit_pause_seconds", "Remaining pause of all calls to Codat."
        )
        self._alerts = gauge("alerts_open", "Open alerts, at most 10,000.")
        self._heartbeat = gauge(
            "worker_heartbeat_age_seconds", "Time since the last heartbeat of any worker."
        )

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
        self._snapshot = SharedCall(read, DATABASE_WITHIN_S)

    async def render(self) -> bytes:
        """All metrics in Prometheus' text format. Those of a database that is down are NaN."""
        if self._snapshot:
            try:
                self._show(await self._snapshot())
            except (DatabaseUnavailable, TimeoutError):
                self._show(None)
        return generate_latest(self.registry)

    def _show(self, snapshot: Snapshot | None) -> None:
        self._database_up.set(snapshot is not None)
        if snapshot is None:
            self._hide_database()
            return
        now = self._clock()
        self._pending.set(snapshot.pending_events.count)
        self._pending_age.set(_seconds_since(snapshot.pending_events.oldest_received_at, now))
        self._projection_errors.set(snapshot.projection_errors)
        for kind, stats in (("fetch", snapshot.fetch_jobs), ("message", snapshot.message_jobs)):
            self._jobs_due.labels(kind).set(stats.due)
            self._jobs_age.labels(kind).set(_seconds_since(stats.oldest_run_at, now))
            self._jobs_dead.labels(kind).set(stats.dead)
        self._messages.labels("pending").set(snapshot.pending_messages)
        self._messages.labels("dead").set(snapshot.message_jobs.dead)
        paused_until = snapshot.paused_until
        self._pause.set(max(0.0, (paused_until - now).total_seconds()) if paused_until else 0)
        self._alerts.set(snapshot.open_alerts)
        seen_at = snapshot.worker_seen_at
        self._heartbeat.set(_seconds_since(seen_at, now) if seen_at else _UNKNOWN)

    def _hide_database(self) -> None:
        for gauge in (
            self._pending,
            self._pending_age,
            self._projection_errors,
            self._pause,
            self._alerts,
            self._heartbeat,
        ):
            gauge.set(_UNKNOWN)
        for labeled in (self._jobs_due, self._jobs_age, self._jobs_dead, self._messages):
            labeled.clear()


def _seconds_since(at: datetime | None, now: datetime) -> float:
    return max(0.0, (now - at).total_seconds()) if at else 0.0
