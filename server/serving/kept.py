"""Keeps records of answers for the log and for traces, until the request has been answered."""

from __future__ import annotations

import time
from contextlib import aclosing

from server.exchange import AnswerRecord, KeptContent
from server.metrics.metrics import Meter
from server.request import Delta, Deltas


def end_record(record: AnswerRecord, last: Delta | None, meter: Meter | None = None) -> None:
    """Complete the record of an answer with its `last` delta. The number of tokens of a cancelled answer
    comes from `meter`, which has counted them.
    """
    record.ended = time.perf_counter()
    if last is not None:
        record.finish_reason, record.usage, record.timing = last.finish_reason, last.usage, last.timing
    if record.usage is not None:
        record.tokens = record.usage.completion_tokens
    elif meter is not None:
        record.tokens = meter.tokens


async def keep_content(deltas: Deltas, content: KeptContent) -> Deltas:
    """Yield `deltas` unchanged, and add the text of each answer to `content`."""
    async with aclosing(deltas):
        async for items in deltas:
            for index, delta in items:
                if delta.text:
                    content.answers.setdefault(index, []).append(delta.text)
            yield items
