"""The server's counters beside what the clients saw."""

from __future__ import annotations

import pytest

from bench.target.metrics import ServerCounts
from bench.target.reconcile import reconcile
from tests.bench.figures.records import record

BEFORE = ServerCounts(100, 5, 1, 1000, 2000, 0, {"sv": 2000})


def after(completed: int = 2, given_up: int = 0, prompt: int = 20, completion: int = 8) -> ServerCounts:
    return ServerCounts(100 + completed, 5 + given_up, 1, 1000 + prompt, 2000 + completion, 0, {"sv": 2000})


DONE = [record(1), record(2)]
LEFT = record(3, outcome="cancelled", arrivals=(0.1, 0.2), completion_tokens=2)


def test_completed_requests_are_exact() -> None:
    found = reconcile(DONE, BEFORE, after())
    assert found.verdict == "exact"
    assert found.server_completion_tokens == found.client_completion_tokens == 8


@pytest.mark.parametrize(
    "counted",
    [after(completed=1), after(completion=7), after(prompt=19), after(completion=9), after(prompt=21)],
    ids=["a request less", "a token less", "a prompt token less", "a token more", "a prompt token more"],
)
def test_a_difference_without_a_reason_is_a_mismatch(counted: ServerCounts) -> None:
    assert reconcile(DONE, BEFORE, counted).failed


def test_cancelled_requests_are_counted_apart() -> None:
    found = reconcile([*DONE, LEFT], BEFORE, after(given_up=1, prompt=30, completion=13))
    assert (found.verdict, found.client_cancelled, found.server_cancelled) == ("within cancelled", 1, 1)
    assert found.client_cancelled_tokens == 2
    # It ended at the server just as its client left.
    assert (
        reconcile([*DONE, LEFT], BEFORE, after(completed=3, prompt=30, completion=12)).verdict
        == "within cancelled"
    )
    assert reconcile([*DONE, LEFT], BEFORE, after(completion=8)).failed, "one request is nowhere"


def test_other_traffic_is_reported() -> None:
    found = reconcile(DONE, BEFORE, after(completed=5, prompt=50, completion=100))
    assert found.verdict == "other traffic"
    assert "3 requests" in found.says
    assert not found.failed


def test_a_server_without_metrics_is_not_reconciled() -> None:
    assert reconcile(DONE, None, None).verdict == "no metrics"
