"""Measures the answers of versions on trial (canaries and shadows) while they are streamed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from server.errors import EngineBusyError, UnsupportedRequestError
from server.exchange import Exchange
from server.metrics.pace import Pace
from server.request import Deltas, GenerationRequest
from server.rollout.shadows import Shadows
from server.rollout.trials import ChosenVersion


async def measure_answer(
    deltas: Deltas, chosen: ChosenVersion, request: GenerationRequest, exchange: Exchange, shadows: Shadows
) -> Deltas:
    """Pass on the deltas of an answer, and record its outcome in the trials of the version that answers
    (`chosen`). If this has a shadow, the shadow's answer starts at the first delta.

    A request with several choices counts once. A request does not count if its client disconnects or the
    queue is full.
    """
    pace, begun = Pace(), False
    try:
        async with aclosing(deltas):
            async for items in deltas:
                for _, delta in items:
                    pace.tokens(len(delta.token_ids))
                if not begun and chosen.shadow is not None:
                    shadows.offer(request, chosen.shadow)
                begun = True
                yield items
        chosen.record_answer(pace)
    except (GeneratorExit, asyncio.CancelledError):
        if exchange.cancel_reason == "timeout":
            chosen.record_failure()
        raise
    except (EngineBusyError, UnsupportedRequestError):
        raise
    except Exception:
        chosen.record_failure()
        raise
