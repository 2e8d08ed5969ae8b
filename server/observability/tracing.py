"""The trace that a request belongs to, and OpenTelemetry spans if they are wanted.

    classify                       the request, under the client's span
    ├── prepare
    └── infer                      Triton's own span comes under it

A request that fails before its message is read is a span `receive` instead. Spans leave by OTLP
over HTTP, which Triton speaks too. `set_up` alone imports the packages that make them, so that
gateways that do not trace do not wait for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from server.errors import ServingError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from requests import Session

# https://www.w3.org/TR/trace-context/: version, trace, span, flags.
TRACEPARENT = re.compile(
    r"[0-9a-f]{2}-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})"
)
# A collector that does not answer delays the end of the gateway by this long.
EXPORT_TIMEOUT_S = 2.0

# Runners send it on, however deep below the call they are.
_client_headers: ContextVar[Mapping[str, str]] = ContextVar("client_headers", default={})  # noqa: B039
_tracer: Tracer | None = None


def set_up(endpoint: str) -> None:
    """Sends spans to `endpoint`, such as http://localhost:4318, until the process ends.

    The SDK's own environment variables apply too: OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, ….
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    global _tracer  # noqa: PLW0603 - one per process, like the log
    resource = Resource({"service.name": "convoy", "service.version": version("convoy-serving")})
    provider = TracerProvider(resource=resource.merge(OTELResourceDetector().detect()))
    url, credentials = split_credentials(endpoint)
    exporter = OTLPSpanExporter(url, timeout=EXPORT_TIMEOUT_S, session=session_for(credentials))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("convoy")


def split_credentials(endpoint: str) -> tuple[str, tuple[str, str] | None]:
    """The URL that spans are sent to, without the user and the password, which are its secret."""
    parts = urlsplit(f"{endpoint.rstrip('/')}/v1/traces")
    user_info, _, address = parts.netloc.rpartition("@")
    user, _, password = map(unquote, user_info.partition(":"))
    url = urlunsplit(parts._replace(netloc=address))
    return url, (user, password) if user_info else None


def session_for(credentials: tuple[str, str] | None) -> Session | None:
    if credentials is None:
        return None  # the SDK's own
    from requests import Session

    session = Session()
    session.auth = credentials
    return session


def begin(headers: Mapping[str, Any]) -> str:
    """The trace id of the client, if it sent one. To be called in the task that serves the call."""
    is_traced = TRACEPARENT.fullmatch(str(headers.get("traceparent", "")))
    _client_headers.set(headers if is_traced else {})
    return is_traced["trace"] if is_traced else ""


def trace_id() -> str:
    """32 hexadecimal digits; empty if neither the client nor the gateway traces."""
    parts = TRACEPARENT.fullmatch(_traceparent())
    return parts["trace"] if parts else ""


def headers() -> dict[str, str]:
    """The headers that put Triton's spans under ours, or under the client's where we do not trace.

    Triton traces every request with such a header, sampled or not: unsampled ones get none.
    """
    parts = TRACEPARENT.fullmatch(_traceparent())
    is_sampled = parts and int(parts["flags"], 16) & 1
    return {"traceparent": parts[0]} if parts and is_sampled else {}


def _traceparent() -> str:
    if _tracer is None:
        return str(_client_headers.get().get("traceparent", ""))
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


class Span:
    """A step while it lasts; an empty one where nobody traces."""

    def __init__(self, recording: Any = None) -> None:
        self._recording = recording

    def note(self, **facts: str | int) -> None:
        if self._recording:
            self._recording.set_attributes({f"convoy.{name}": fact for name, fact in facts.items()})

    def fail(self, reason: str) -> None:
        if self._recording:
            from opentelemetry.trace import StatusCode

            self.note(reason=reason)
            self._recording.set_status(StatusCode.ERROR)


NO_SPAN = nullcontext(Span())


def is_set_up() -> bool:
    return _tracer is not None


def span(name: str, **facts: str | int) -> AbstractContextManager[Span]:
    """A step; the outermost one of a task is the request, under the client's span."""
    return recorded_span(_tracer, name, facts) if _tracer else NO_SPAN


@contextmanager
def recorded_span(tracer: Tracer, name: str, facts: Mapping[str, str | int]) -> Iterator[Span]:
    from opentelemetry.trace import SpanKind, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if get_current_span().get_span_context().is_valid:
        context, kind = None, SpanKind.INTERNAL
    else:
        context = TraceContextTextMapPropagator().extract(_client_headers.get())
        kind = SpanKind.SERVER
    with tracer.start_as_current_span(name, context, kind, record_exception=False) as recording:
        step = Span(recording)
        step.note(**facts)
        try:
            yield step
        except ServingError as error:
            step.note(reason=error.reason)
            raise
