"""Requests as OpenTelemetry's traces and metrics, without a collector; loaded only if `otel` is on."""
