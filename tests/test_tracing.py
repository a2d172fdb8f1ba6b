"""Traces: from a delivery through its projection to its fetch, and none unless asked for."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from app.bootstrap import create_app, start_tracing
from app.errors import SettingsError
from app.settings import Settings, load_settings, wants_traces
from app.tracing import Tracing
from tests.conftest import KINDS, NewDatabase
from tests.processes import (
    API_KEY,
    AUTHORIZED,
    CODAT_KEY,
    SECRET,
    SimulatedCodat,
    Stage,
    deliver,
    environment,
    failed_event,
    get,
    signed,
    stage,
    wait_for,
)
from tests.receiver import SIGNING_SECRET, Receiver, receiver

HUSH = "hush-hush"
HOST = "http://test"
LIBRARIES = ("httpx", "psycopg", "sqlalchemy")
Spans = dict[str, list[ReadableSpan]]
"""Ended spans by name."""


@pytest.fixture(scope="module", params=KINDS)
def spans(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    new_database: NewDatabase,
) -> Spans:
    """The spans of the application with its worker, which got an event and read a list."""
    exporter = InMemorySpanExporter()
    with (
        new_database(request.param) as url,
        stage(tmp_path_factory.mktemp("traces"), url) as found,
        receiver() as listener,
    ):
        codat = SimulatedCodat(found.simulate())
        company, sync_id = codat.create_sync(outcome="partly_failed", size=2)
        settings = load_settings(
            database_url=url,
            codat_webhook_secrets=SECRET,
            codat_api_key=CODAT_KEY,
            codat_base_url=found.codat,
            api_keys=API_KEY,
            notify_webhook_urls=f"{listener.address}/in?token={HUSH}",
            notify_signing_secret=SIGNING_SECRET,
            reconcile_every_minutes=0,
        )
        tracing = Tracing(found.codat, exporter)
        try:
            asyncio.run(use(settings, tracing, failed_event(sync_id, company), listener))
        finally:
            tracing.close()
    by_name: Spans = {}
    for span in exporter.get_finished_spans():
        by_name.setdefault(span.name, []).append(span)
    return by_name


async def use(settings: Settings, tracing: Tracing, body: bytes, listener: Receiver) -> None:
    app = create_app(settings, tracing=tracing)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=HOST, headers=AUTHORIZED) as client,
    ):
        statuses: list[int] = []
        async with asyncio.timeout(30):
            while statuses.count(204) < 2:  # 503 while the projector holds the event
                headers = signed(body, "msg_1")
                answer = await client.post("/webhooks/codat", content=body, headers=headers)
                statuses.append(answer.status_code)
            while not listener.received:
                await asyncio.sleep(0.05)
        assert (await client.get("/api/v1/syncs")).is_success
        assert (await client.get("/livez")).is_success


def trace_of(span: ReadableSpan) -> int:
    assert span.context
    return int(span.context.trace_id)


def test_a_delivery_is_followed_to_its_fetch_and_its_message(spans: Spans) -> None:
    """One trace, whose first span lasts from the receipt to the projection."""
    (event,) = spans["webhook event"]
    assert event.parent is None
    assert event.context
    assert event.attributes
    assert event.attributes["message_id"] == "msg_1"
    assert event.attributes["event_type"] == "sync.failed"
    assert len(spans["POST /webhooks/codat"]) >= 2
    names = ("POST /webhooks/codat", "project webhook event", "fetch sync")
    found = [span for name in names for span in spans[name]]
    sent = [span for span in spans["send message"] if span.parent]  # alerts are about no event
    assert sent
    for span in [*found, *sent]:
        assert trace_of(span) == event.context.trace_id, span.name
        assert span.parent
        assert span.parent.span_id == event.context.span_id, span.name
    (batch, *_) = spans["project webhook events"]
    (link,) = spans["project webhook event"][0].links
    assert batch.context == link.context
    fetch = spans["fetch sync"][0]
    assert fetch.attributes
    assert fetch.attributes["job.result"] == "done"
    assert fetch.context
    calls = [span for span in spans["GET"] if span.parent == fetch.context]
    assert len(calls) >= 2  # status and transactions


def test_each_library_reports_and_an_idle_worker_does_not(
    spans: Spans, request: pytest.FixtureRequest
) -> None:
    found = [span for named in spans.values() for span in named]
    scopes = {span.instrumentation_scope.name for span in found if span.instrumentation_scope}
    libraries = {"app", "fastapi", *map("opentelemetry.instrumentation.".__add__, LIBRARIES)}
    if "sqlite" in request.node.name:
        libraries -= {"opentelemetry.instrumentation.psycopg"}
    assert scopes == libraries
    assert "GET /api/v1/syncs" in spans
    assert not any("livez" in name for name in spans)
    orphans = [span.name for span in found if span.kind == SpanKind.CLIENT and not span.parent]
    assert orphans == []


def test_traces_contain_no_secret_and_no_body(spans: Spans) -> None:
    text = "".join(span.to_json() for named in spans.values() for span in named)
    for secret in (HUSH, SECRET, CODAT_KEY, API_KEY, "RuleType"):
        assert secret not in text
    assert "INSERT INTO webhook_events" in text


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "must be otlp, console or none"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "must be http/protobuf",
        ),
    ],
)
def test_an_exporter_that_is_not_there_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, error: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, value)
    assert wants_traces()
    with pytest.raises(SettingsError, match=f"{variable} {error}"):
        start_tracing(load_settings())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_collector_that_is_down_delays_neither_deliveries_nor_the_end(stage: Stage) -> None:
    process = stage.serve(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert deliver(process, "m1", failed_event("s1")) == 204
    wait_for(lambda: get(process, "/syncs/s1"))
    began = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_environment_decides(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wants_traces() is wanted


def test_without_the_packages_it_is_one_clear_error(tmp_path: Path) -> None:
    """As in the image without them: a finder hides what is installed here."""
    code = (
        "import sys\n"
        "sys.modules['opentelemetry.sdk'] = None\n"
        "sys.argv = ['app', 'worker']\n"
        "from app.__main__ import cli\n"
        "cli()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(OTEL_TRACES_EXPORTER="otlp"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "opentelemetry.sdk.trace is not installed" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
