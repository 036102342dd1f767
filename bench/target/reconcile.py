"""Compare the counters of the server with what the clients of the benchmark saw.

For completed requests, the numbers of requests and tokens must be exactly equal. For a request whose client
disconnected, the server may have generated more tokens than the client received. If the server counted more
requests than the benchmark sent, others used the server too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.load.records import RequestRecord
from bench.target.http import Endpoint
from bench.target.metrics import ServerCounts, counts
from bench.target.probe import ServerKind

SETTLE_SECONDS = 10.0
"""Maximum seconds to wait until the server has ended the requests whose clients disconnected."""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The server's counters and the clients' counts for one run, and the verdict of comparing them."""

    verdict: Literal["exact", "within cancelled", "other traffic", "mismatch", "no metrics"]
    says: str
    client_completed: int = 0
    server_completed: int = 0
    client_cancelled: int = 0
    server_cancelled: int = 0
    client_completion_tokens: int = 0
    server_completion_tokens: int = 0
    client_prompt_tokens: int = 0
    server_prompt_tokens: int = 0
    client_cancelled_tokens: int = 0
    """Number of tokens that clients received before they disconnected. `client_completion_tokens` does not
    include them.
    """

    @property
    def failed(self) -> bool:
        """True if the server's counters contradict the counts of the clients."""
        return self.verdict == "mismatch"


def settled(endpoint: Endpoint, kind: ServerKind, before: ServerCounts, requests: int) -> ServerCounts | None:
    """Wait until the server has no running requests and has counted all `requests` since `before`, or the
    time is up. Return its counters. None if it has no metrics.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while (now := counts(endpoint, kind)) is not None:
        ended = now.since(before)
        whole = ended.completed + ended.given_up + ended.failed >= requests
        if (now.running == 0 and whole) or time.monotonic() > deadline:
            return now
        time.sleep(0.1)
    return None


def reconcile(
    records: Sequence[RequestRecord], before: ServerCounts | None, after: ServerCounts | None
) -> Reconciliation:
    """Compare the server's counters with the clients' counts. `before` and `after` are None if the server has
    no metrics.
    """
    if before is None or after is None:
        return Reconciliation(
            "no metrics",
            "the server has no known counters, so its token counts were not compared with the clients'",
        )
    server = after.since(before)
    done = [record for record in records if record.outcome == "completed"]
    left = [record for record in records if record.outcome == "cancelled"]
    made = sum(record.completion_tokens for record in done)
    asked = sum(record.prompt_tokens for record in done)
    reached = sum(sum(record.events) for record in left)
    verdict, says = _judge(server, len(done), len(left), made, asked, reached)
    return Reconciliation(
        verdict, says, len(done), round(server.completed), len(left), round(server.given_up),
        made, round(server.completion_tokens), asked, round(server.prompt_tokens), reached,
    )  # fmt: skip


def _judge(
    server: ServerCounts, done: int, left: int, made: int, asked: int, reached: int
) -> tuple[Literal["exact", "within cancelled", "other traffic", "mismatch"], str]:
    requests = round(server.completed + server.given_up) - done - left
    tokens, prompts = round(server.completion_tokens) - made, round(server.prompt_tokens) - asked
    # An answer that was given up as its last token left may count as completed at the server.
    short = [
        f"{-difference} {what}"
        for what, difference in (
            ("requests", min(requests, round(server.completed) - done)),
            ("completion tokens", tokens),
            ("prompt tokens", prompts),
        )
        if difference < 0
    ]
    if short:
        return "mismatch", f"the server counted {' and '.join(short)} less than the clients saw"
    if requests > 0:
        return (
            "other traffic",
            f"the server also served {requests} requests of other clients, so the figures include other load",
        )
    if left:
        return (
            "within cancelled",
            f"both sides agree except for {left} cancelled requests, whose clients saw {reached} tokens",
        )
    if tokens or prompts:
        return (
            "mismatch",
            f"the server counted {tokens} completion and {prompts} prompt tokens more than the clients saw",
        )
    return "exact", f"both sides counted {done} requests, {made} completion tokens and {asked} prompt tokens"
