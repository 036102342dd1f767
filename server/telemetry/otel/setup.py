"""Sets up OpenTelemetry's SDK, as its OTEL_* environment variables say.

Its providers are not registered globally, so that no library in this process traces through them by accident.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from server.config.extras import ExtraMissingError
from server.config.values import SettingsError
from server.config.version import oneseek_version
from server.telemetry.otel import names

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor

    from server.telemetry.otel.tracing import RequestTracing

SCOPE = "oneseek"
"""The name of the instrumentation scope of all spans and metrics."""
TRACES_VARIABLE, METRICS_VARIABLE = "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"
EXPORTERS = ("otlp", "none")
PROTOCOL = "http/protobuf"
_HEADER_LOGGERS = ("opentelemetry.trace.propagation.tracecontext", "opentelemetry.trace.span")
"""OpenTelemetry's loggers that warn about invalid trace headers. They are silenced, since any client can send
such headers as often as it likes.
"""
_PROTOCOL_VARIABLES = (
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
)


def open_tracing(environ: Mapping[str, str]) -> RequestTracing:
    """Return the observer that exports traces and metrics of requests over OTLP.

    Raises `ExtraMissingError` if the packages are missing, and `SettingsError` for a variable whose value is
    not supported.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise ExtraMissingError(
            f"the setting otel needs the package {error.name}: run pip install 'oneseek[otel]', or set otel "
            "to false"
        ) from None
    check_variables(environ)
    traces, metrics = (_exports(environ, name) for name in (TRACES_VARIABLE, METRICS_VARIABLE))
    processors = [BatchSpanProcessor(OTLPSpanExporter())] if traces else []
    readers = [PeriodicExportingMetricReader(OTLPMetricExporter())] if metrics else []
    return make_tracing(environ, processors, readers)


def make_tracing(
    environ: Mapping[str, str], processors: Sequence[SpanProcessor], readers: Sequence[MetricReader]
) -> RequestTracing:
    """Return an observer that exports with the given exporters instead of OTLP."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from server.telemetry.otel.tracing import RequestTracing

    for name in _HEADER_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    resource = _resource(environ)
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    for processor in processors:
        tracers.add_span_processor(processor)
    meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    version = oneseek_version()
    return RequestTracing(
        tracers.get_tracer(SCOPE, version),
        meters.get_meter(SCOPE, version),
        generative=names.opts_in(environ),
        shutdown=(tracers.shutdown, meters.shutdown),
    )


def check_variables(environ: Mapping[str, str]) -> None:
    """Raise `SettingsError` if an OTEL_* variable names an exporter or a protocol that is not supported."""
    for name in (TRACES_VARIABLE, METRICS_VARIABLE):
        value = environ.get(name, "").strip()
        if value and value not in EXPORTERS:
            raise SettingsError(
                name, f"the exporter {value!r} is not supported; use {' or '.join(EXPORTERS)}", "environment"
            )
    for name in _PROTOCOL_VARIABLES:
        value = environ.get(name, "").strip()
        if value and value != PROTOCOL:
            raise SettingsError(
                name,
                f"the protocol {value!r} is not supported; use {PROTOCOL}, usually on a collector's port "
                "4318",
                "environment",
            )


def _exports(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").strip() != "none"


def _resource(environ: Mapping[str, str]) -> Resource:
    """Return the attributes that describe this server. Values from OTEL_ variables take precedence."""
    from opentelemetry.sdk.resources import Resource

    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {"service.version": oneseek_version(), "service.instance.id": str(uuid.uuid4())}
    found = own | dict(Resource.create({}).attributes)
    return Resource(found if named else {**found, "service.name": SCOPE})
