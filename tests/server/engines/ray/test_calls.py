"""Frames and errors come out as they went in."""

from __future__ import annotations

import math

import pytest

from server.engines.ray.calls import (
    Frame,
    decode_frame,
    describe_failure,
    encode_frame,
    restore_failure,
)
from server.errors import (
    AdapterNotLoadedError,
    AdapterRefusedError,
    AdaptersBusyError,
    AdapterUnavailableError,
    ContextExceededError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    NoSlotError,
    UnreadAnswerError,
    UnsupportedRequestError,
)
from server.request import Delta, Timing, TokenLogprob, Usage


@pytest.mark.parametrize(
    "delta",
    [
        Delta("Hej", (5,)),
        Delta(
            "",
            (1, 2),
            (TokenLogprob(1, -0.5, ((1, -0.5), (9, -math.inf)), 2),),
            (TokenLogprob(3, -1.0),),
            "stop",
            "slut",
            Usage(3, 2, 1),
            Timing(1.0, 2.0, 3.0, 4.0),
        ),
        Delta("x", (2,), finish_reason="length", stop_reason=2, anew=True),
    ],
)
def test_a_delta_is_the_same_on_the_other_side(delta: Delta) -> None:
    assert decode_frame(encode_frame(Frame("r1", [delta]))) == Frame("r1", [delta])


@pytest.mark.parametrize(
    "error",
    [
        EngineError("a"),
        EngineDeadError("b"),
        EngineBusyError("c", 3.5),
        AdapterRefusedError("d"),
        NoSlotError("d2"),
        AdapterUnavailableError("e"),
        AdapterNotLoadedError("f"),
        AdaptersBusyError("g"),
        UnsupportedRequestError("h", "tools"),
        ContextExceededError("i", "max_tokens"),
        UnreadAnswerError("j"),
    ],
)
def test_an_error_keeps_its_type_and_what_it_says(error: EngineError) -> None:
    failure = decode_frame(encode_frame(Frame("r1", failure=describe_failure(error)))).failure
    assert failure is not None
    found = restore_failure(failure)
    assert (type(found), str(found)) == (type(error), str(error))
    assert getattr(found, "param", None) == getattr(error, "param", None)
    assert getattr(found, "retry_after", None) == getattr(error, "retry_after", None)
