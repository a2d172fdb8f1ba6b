"""OpenTelemetry traces. Imported only if an `OTEL_…` variable asks for them (`app.bootstrap`).

    webhook event                     from its receipt to its projection
    ├── POST /webhooks/codat          each delivery, with the INSERT
    ├── project webhook event         linked to the batch, which has the statements
    └── fetch sync                    with the calls to Codat; then `send message`

Processes share nothing but the message id of the event, so the ids of the trace and of its first
span are derived from it: nothing is stored for a trace, and no delivery waits for one.
"""

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import httpx
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from app import VERSION
from app.db.jobs import Claim
from app.db.pending_events import PendingEvent
from app.domain.webhook_loss import WEBHOOK_PATH
from app.errors import SettingsError
from app.worker.job_pool import AttemptResult, Handle
from app.worker.scheduler import PeriodicTask

SERVICE = "codat-sync-receiver"
EVENT_SPAN = "webhook event"
_ID_HEADERS = (b"webhook-id", b"svix-id")
_UNTRACED_PATHS = ("/livez", "/readyz", "/metrics")
_JOB_SPANS = {"fetch": "fetch sync", "message": "send message"}
_derived_ids: ContextVar[SpanContext | None] = ContextVar("derived_ids", default=None)


class _Ids(RandomIdGenerator):
    """Random ids, or those that a first span derives from its event."""

    def generate_trace_id(self) -> int:
        derived = _derived_ids.get()
        return derived.trace_id if derived else super().generate_trace_id()

    def generate_span_id(self) -> int:
        derived = _derived_ids.get()
        return derived.span_id if derived else super().generate_span_id()


class _WithoutPolling(Sampler):
    """Drops client spans without a parent: they are the statements of an idle worker."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        *others: Any,
        **named: Any,
    ) -> SamplingResult:
        is_first = not trace.get_current_span(parent_context).get_span_context().is_valid
        if is_first and kind == SpanKind.CLIENT:
            return SamplingResult(Decision.DROP)
        return self._sampler.should_sample(parent_context, trace_id, name, kind, *others, **named)

    def get_description(self) -> str:
        return self._sampler.get_description()


def _exporter() -> SpanExporter:
    """The exporter that the environment names. Raises SettingsError."""
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "console":
        return ConsoleSpanExporter()
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        raise SettingsError("OTEL_TRACES_EXPORTER must be otlp, console or none.")
    if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") != "http/protobuf":
        raise SettingsError("OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf.")
    return OTLPSpanExporter()


class Tracing:
    """The traces of one process. Sampler, exporter and resource are those of the environment."""

    def __init__(self, codat_base_url: str, exporter: SpanExporter | None = None) -> None:
        """Instrument SQLAlchemy, psycopg and httpx, whose engines and clients are made later."""
        if "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
            os.environ.setdefault("OTEL_SERVICE_NAME", SERVICE)
        self.provider = TracerProvider(
            id_generator=_Ids(), resource=Resource.create({"service.version": VERSION})
        )
        self._sampler = self.provider.sampler
        self.provider.sampler = _WithoutPolling(self._sampler)
        self.provider.add_span_processor(BatchSpanProcessor(exporter or _exporter()))
        self._tracer = self.provider.get_tracer("app")
        self._codat_base_url = codat_base_url
        self._instrumentors = (
            SQLAlchemyInstrumentor(),
            PsycopgInstrumentor(),
            HTTPXClientInstrumentor(),
        )
        for instrumentor in self._instrumentors:
            # our pins decide which versions go together; its own ranges lag behind
            instrumentor.instrument(
                skip_dep_check=True,
                tracer_provider=self.provider,
                async_request_hook=self._hide_receiver,
            )

    def close(self) -> None:
        """Export what is left, and undo the instrumentation."""
        for instrumentor in self._instrumentors:
            instrumentor.uninstrument()
        self.provider.shutdown()

    async def _hide_receiver(self, span: trace.Span, request: Any) -> None:
        """The address of a receiver of messages may be a secret: only its host is reported."""
        url = httpx.URL(request.url)
        if span.is_recording() and not str(url).startswith(self._codat_base_url):
            for name in ("http.url", "url.full"):
                span.set_attribute(name, f"{url.scheme}://{url.host}")

    def telemetry(self) -> Any:
        """What FastAPI, which traces its requests itself, has to know."""
        return {
            "tracer_provider": self.provider,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
            "exclude": lambda scope: scope["path"] in _UNTRACED_PATHS,
        }

    def _context(self, message_id: str) -> Context:
        """The context of the first span of this event's trace, as of a remote parent."""
        digest = sha256(message_id.encode()).digest()
        trace_id, span_id = int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])
        decision = self._sampler.should_sample(None, trace_id, EVENT_SPAN).decision
        is_sampled = decision == Decision.RECORD_AND_SAMPLE
        flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
        first = SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
        return trace.set_span_in_context(NonRecordingSpan(first), Context())

    def trace_deliveries(self, app: Callable[..., Awaitable[None]]) -> Any:
        """ASGI middleware: a span for each delivery; other requests are FastAPI's."""

        async def traced(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or not scope["path"].rstrip("/").endswith(WEBHOOK_PATH):
                await app(scope, receive, send)
                return
            headers = dict(scope["headers"])
            found = next((headers[name] for name in _ID_HEADERS if name in headers), b"")
            message_id = found.decode("latin-1")
            context = self._context(message_id) if message_id else Context()
            name = f"{scope['method']} {WEBHOOK_PATH}"
            attributes = {"http.request.method": scope["method"], "message_id": message_id}
            with self._tracer.start_as_current_span(
                name, context, SpanKind.SERVER, attributes
            ) as span:

                async def send_traced(message: Any) -> None:
                    if message["type"] == "http.response.start":
                        span.set_attribute("http.response.status_code", message["status"])
                    await send(message)

                await app(scope, receive, send_traced)

        return traced

    @contextmanager
    def projection(self, events: Sequence[PendingEvent]) -> Iterator[None]:
        """A span for the batch, and one in the trace of each event."""
        contexts = [self._context(event.message_id) for event in events]
        links = [Link(trace.get_current_span(context).get_span_context()) for context in contexts]
        began = datetime.now(UTC)
        with self._tracer.start_as_current_span(
            "project webhook events", Context(), SpanKind.CONSUMER, links=links
        ) as batch:
            yield
        ended = _nanoseconds(datetime.now(UTC))
        to_batch = [Link(batch.get_span_context())]
        for event, context in zip(events, contexts, strict=True):
            if not event.was_applied:
                self._end_event(event, context, ended)
            span = self._tracer.start_span(
                "project webhook event",
                context,
                SpanKind.CONSUMER,
                {"message_id": event.message_id},
                to_batch,
                start_time=_nanoseconds(began),
            )
            span.end(ended)

    def _end_event(self, event: PendingEvent, context: Context, ended: int) -> None:
        """Report the first span of an event, now that it is known how long it took."""
        payload = event.payload
        attributes = {
            "message_id": event.message_id,
            "event_type": payload.event_type,
            "company_id": payload.company_id or "",
            "sync_id": payload.sync_id or "",
        }
        token = _derived_ids.set(trace.get_current_span(context).get_span_context())
        try:
            span = self._tracer.start_span(
                EVENT_SPAN,
                Context(),
                attributes=attributes,
                start_time=_nanoseconds(event.received_at),
            )
        finally:
            _derived_ids.reset(token)
        span.end(ended)

    def trace_job(self, handle: Handle) -> Handle:
        """Wrap the handler of a kind of job: a span in the trace of the event that caused it."""

        async def traced(claim: Claim) -> AttemptResult:
            message_id = claim.origin.message_id
            context = self._context(message_id) if message_id else Context()
            attributes = {"company_id": claim.group_key} if claim.kind == "fetch" else {}
            with self._tracer.start_as_current_span(
                _JOB_SPANS[claim.kind],
                context,
                SpanKind.CONSUMER,
                {**attributes, "job.attempt": claim.attempts},
            ) as span:
                result = await handle(claim)
                span.set_attribute("job.result", result)
                return result

        return traced

    def trace_task(self, task: PeriodicTask) -> PeriodicTask:
        """The same task with a span for each run."""

        async def run() -> object:
            with self._tracer.start_as_current_span(f"periodic task {task.name}", Context()):
                return await task.run()

        return replace(task, run=run)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
