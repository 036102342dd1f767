"""Check that telemetry can be exported, if it is enabled in the settings."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from server.config.values import SettingsError
from server.doctor.findings import Finding, fault, ok, warning
from server.doctor.subject import Subject
from server.telemetry.otel.setup import check_variables

DEFAULT_ENDPOINT = "http://localhost:4318"
ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
CONNECT_SECONDS = 1.0


def check_telemetry(subject: Subject) -> Iterator[Finding]:
    """Check OpenTelemetry's packages, variables and collector, if the setting `otel` is on."""
    if not subject.settings.otel:
        yield ok("telemetry", "otel is off, so no traces and metrics are exported to a collector")
        return
    if not _installed():
        remedy = "Run: pip install 'oneseek[otel]', or set otel to false"
        yield fault("telemetry", "otel is on, but OpenTelemetry is not installed", remedy)
        return
    try:
        check_variables(subject.environ)
    except SettingsError as error:
        yield fault(
            "telemetry", f"{error.name}: {error.problem}", "Correct the environment variable, or unset it"
        )
        return
    endpoint = subject.environ.get(ENDPOINT_VARIABLE, "") or DEFAULT_ENDPOINT
    parts = urlsplit(endpoint)
    place = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    try:
        host, _, port = place.rpartition(":")
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        remedy = f"Start a collector there, or set {ENDPOINT_VARIABLE} to another address"
        yield warning("telemetry", f"no OpenTelemetry collector answers at {place} ({error})", remedy)
        return
    yield ok("telemetry", f"a collector for traces and metrics listens at {place}")


def _installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.sdk.trace") is not None
    except ModuleNotFoundError:
        return False
