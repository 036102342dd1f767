"""Exports requests as OpenTelemetry's traces and metrics to a collector that is not included; loaded only if
`otel` is on.
"""
