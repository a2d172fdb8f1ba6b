"""Metrics: what the process counts, and what the database has."""

import asyncio
import math
from datetime import timedelta
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry

from app.db import alerts, jobs, rate_limit, workers
from app.db.engine import Database, open_database
from app.domain.webhook_loss import Finding
from app.web.metrics import ATTEMPT_RESULTS, DELIVERY_RESULTS, Metrics
from app.worker.job_pool import AttemptResult
from tests.factories import add_event
from tests.web.store import NOW, T0, Store, after


class Sample:
    """Reads samples of the metrics under test."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), secrets=2, version="1.2.3")


def test_deliveries_are_counted_by_result(metrics: Metrics) -> None:
    """Every result is shown from the start. An unknown one is a programming error."""
    sample = Sample(metrics)
    for result in DELIVERY_RESULTS:
        assert sample("webhook_deliveries_total", result=result) == 0
    metrics.delivery("stored")
    assert sample("webhook_deliveries_total", result="stored") == 1
    assert sample("job_attempts_total", kind="message", result="dead") == 0
    assert sample("codat_call_seconds_count", result="rate_limited") == 0
    with pytest.raises(KeyError):
        metrics.delivery("unheard of")
    with pytest.raises(KeyError):
        metrics.job_attempt("fetch", "unheard of")


def test_the_results_are_those_of_the_worker() -> None:
    assert set(ATTEMPT_RESULTS) == set(get_args(AttemptResult))


def test_the_use_of_each_secret_is_counted(metrics: Metrics) -> None:
    sample = Sample(metrics)
    metrics.secret_matched(1, T0)
    assert sample("webhook_secret_matches_total", index="0") == 0
    assert sample("webhook_secret_matches_total", index="1") == 1
    assert sample("webhook_secret_last_used_timestamp_seconds", index="1") == T0.timestamp()
    assert metrics.secrets_last_used() == [None, T0]


def test_batches_attempts_calls_and_requests_are_counted(metrics: Metrics) -> None:
    sample = Sample(metrics)
    metrics.batch(3, 0.004)
    metrics.job_attempt("fetch", "retry")
    metrics.codat_call("ok", 0.2)
    metrics.quota(41)
    metrics.record_request("GET", "/api/v1/syncs", 200, 0.01)
    metrics.record_request("HACK", "other", 405, 0.01)
    assert sample("webhook_batch_rows_sum") == 3
    assert sample("webhook_commit_seconds_count") == 1
    assert sample("job_attempts_total", kind="fetch", result="retry") == 1
    assert sample("codat_call_seconds_count", result="ok") == 1
    assert sample("codat_quota_remaining") == 41
    request = {"route": "/api/v1/syncs", "status": "200"}
    assert sample("http_requests_total", method="GET", **request) == 1
    assert sample("http_requests_total", method="other", route="other", status="405") == 1


def test_the_state_of_the_database_is_read_at_each_scrape(store: Store, metrics: Metrics) -> None:
    database, sample = store.database, Sample(metrics)
    metrics.watch_database(database, lambda: NOW)
    add_event(database, "m1", at=after(hours=1))
    store.event("m2", projection_error="it failed")
    pks = [store.failed(f"s{n}", rows=None) for n in range(3)]
    for pk, state, hours in zip(pks, ("pending", "pending", "dead"), (1, 2, 2), strict=True):
        store.job(pk, state, run_at=after(hours=hours))
    store.job(store.failed("later", rows=None), run_at=after(hours=4))
    with database.writing() as connection:
        jobs.enqueue(connection, "message", [(7, "webhook:1")], now=after(hours=2, minutes=59))
        findings = [
            Finding("webhooks_lost", "c1", "no webhook since …"),
            Finding("push_error:account_closed", "c1", "…"),
            Finding("push_error:period_closed", "c1", "…"),
        ]
        alerts.sync_alerts(connection, {finding.cause for finding in findings}, findings, T0)
        rate_limit.pause(connection, NOW + timedelta(seconds=90), "429", T0)
        workers.beat(connection, "w1", NOW - timedelta(seconds=4))
    text = asyncio.run(metrics.render()).decode()
    assert "webhook_events_pending 1.0" in text
    assert sample("database_up") == 1
    assert sample("webhook_events_oldest_pending_seconds") == 7200
    assert sample("webhook_events_projection_errors") == 1
    assert sample("jobs_dead", kind="fetch") == 1
    assert sample("jobs_due", kind="fetch") == 2
    assert sample("jobs_oldest_due_seconds", kind="fetch") == 7200
    assert sample("jobs_due", kind="message") == 1
    assert sample("jobs_oldest_due_seconds", kind="message") == 60
    assert sample("outgoing_messages", state="pending") == 1
    assert sample("outgoing_messages", state="dead") == 0
    assert sample("outgoing_messages", state="unaddressed") == 3  # about the alerts
    assert sample("codat_rate_limit_pause_seconds") == 90
    assert sample("alerts_open", cause="webhooks_lost") == 1
    assert sample("alerts_open", cause="push_error") == 2
    assert sample("alerts_open", cause="messages_undelivered") == 0
    assert sample("workers_alive") == 1
    assert sample("worker_heartbeat_age_seconds") == 4


def test_a_database_that_is_down_hides_its_metrics_and_no_others(
    database: Database, metrics: Metrics
) -> None:
    """An old number would look like a current one."""
    sample = Sample(metrics)
    metrics.watch_database(database, lambda: NOW)
    metrics.delivery("stored")
    asyncio.run(metrics.render())
    assert sample("webhook_events_pending") == 0
    metrics.watch_database(open_database("postgresql://someone@127.0.0.1:1/none"), lambda: NOW)
    text = asyncio.run(metrics.render()).decode()
    assert 'webhook_deliveries_total{result="stored"} 1.0' in text
    assert sample("database_up") == 0
    assert math.isnan(sample("webhook_events_pending") or 0)
    assert sample("jobs_due", kind="fetch") is None


def test_the_database_is_read_at_most_every_few_seconds(store: Store, metrics: Metrics) -> None:
    """Its numbers cost the same at any size, but not nothing."""
    clock = [100.0]
    metrics.watch_database(store.database, lambda: NOW, lambda: clock[0])
    asyncio.run(metrics.render())
    add_event(store.database, "m1", at=T0)
    for at, pending in ((102.9, 0), (103.1, 1)):
        clock[0] = at
        asyncio.run(metrics.render())
        assert Sample(metrics)("webhook_events_pending") == pending
