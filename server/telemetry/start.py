"""Creates the observers of requests that the settings ask for: the request log and OpenTelemetry's traces."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from server.config.settings import Settings
from server.telemetry.observer import RequestObserver
from server.telemetry.records import descriptor_of, is_terminal
from server.telemetry.request_log import open_request_log

REQUEST_LEVELS = frozenset({"info", "debug"})
"""The values of `log_level` at which requests are logged."""
DISABLED_VARIABLE = "OTEL_SDK_DISABLED"
"""OpenTelemetry's environment variable that turns it off, if the value is `true`."""


def open_observers(settings: Settings, environ: Mapping[str, str]) -> tuple[RequestObserver, ...]:
    """Return the observers in the order in which they are called for each request.

    OpenTelemetry is imported only if it is on. Raises `ExtraMissingError` if its packages are missing, and
    `SettingsError` for an OTEL_* variable whose value is not supported.
    """
    observers: list[RequestObserver] = []
    wanted = settings.log_requests and settings.log_level in REQUEST_LEVELS
    descriptor = descriptor_of(sys.stdout) if wanted else None
    if descriptor is not None:
        as_json = settings.log_format == "json" or (
            settings.log_format == "auto" and not is_terminal(sys.stdout)
        )
        observers.append(open_request_log(descriptor, as_json=as_json, content=settings.log_content))
    if settings.otel and environ.get(DISABLED_VARIABLE, "").strip().lower() != "true":
        from server.telemetry.otel.setup import open_tracing

        observers.append(open_tracing(environ))
    return tuple(observers)
