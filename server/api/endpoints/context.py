"""What every endpoint is given, and the few lines that they share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from routing.route import Question
from server.config.settings import Settings
from server.exchange import EXCHANGE, Exchange
from server.serving.generation import Generation, Served
from server.serving.sampling_defaults import SamplingDefaults


@dataclass(frozen=True, slots=True)
class Context:
    """The running server, as endpoints see it."""

    generation: Generation
    settings: Settings
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    started: float = field(default_factory=time.time)
    """Unix time of the start; also the models' `created`."""

    @property
    def default_length(self) -> int | None:
        """Length of an answer whose request names none; None: what is left of the context."""
        return self.settings.default_max_tokens or self.defaults.max_new_tokens


def reply(value: Any) -> Response:
    """`value` as a JSON response."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def question(request: Request, model: str, turns: tuple[str, ...], opening: tuple[str, ...] = ()) -> Question:
    """What routing has to decide for `request`; `opening` as `Question` has it."""
    exchange: Exchange = request.scope[EXCHANGE]
    return Question(
        header=exchange.headers.get(b"x-oneseek-adapter"),
        model=model,
        turns=turns,
        accept_language=exchange.headers.get(b"accept-language"),
        opening=opening,
    )


def envelope(answer_id: str, kind: str, served: Served) -> dict[str, Any]:
    """What every answer and every chunk of a stream begins with."""
    return {
        "id": answer_id,
        "object": kind,
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": served.fingerprint,
    }
