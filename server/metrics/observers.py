"""Counts the steps, failures, loads and unloads of one base's engine."""

from __future__ import annotations

from prometheus_client import Counter, Histogram


class StepMetrics:
    """Counts the steps and failures of one base's engine, as its `StepObserver` and `FailureObserver`."""

    def __init__(
        self, base: str, seconds: Histogram, batch_size: Histogram, failures: Counter, restarts: Counter
    ) -> None:
        self._base = base
        self._seconds = seconds.labels(base)
        self._batch_size = batch_size.labels(base)
        self._failures = failures
        self._restarts = restarts

    def step(self, seconds: float, batch: int) -> None:
        """Count one step of the engine. Called from the engine's thread."""
        self._seconds.observe(seconds)
        self._batch_size.observe(batch)

    def failed(self, failure: str) -> None:
        """Count a failure: the engine died, or it hung and was given up."""
        self._failures.labels(self._base, failure).inc()

    def restarted(self, outcome: str) -> None:
        """Count an attempt to start the engine again, with its outcome."""
        self._restarts.labels(self._base, outcome).inc()


class LoadMetrics:
    """Counts the loads and unloads of a base that is loaded on demand, as its `LoadObserver`."""

    def __init__(self, base: str, loads: Counter, seconds: Histogram, unloads: Counter) -> None:
        self._base = base
        self._loads = loads
        self._seconds = seconds
        self._unloads = unloads

    def base_loaded(self, outcome: str, seconds: float) -> None:
        """Count a load of the base, with its outcome."""
        self._loads.labels(self._base, outcome).inc()
        self._seconds.labels(self._base, outcome).observe(seconds)

    def base_unloaded(self, reason: str) -> None:
        """Count an unload of the base, with the reason."""
        self._unloads.labels(self._base, reason).inc()
