"""Make the requests of a scenario for a given server and random seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal

from bench.load.records import PlannedRequest
from bench.scenarios.scenario import LONG, ServingScenario
from bench.target.changes import CHANGED
from bench.target.http import TargetError
from bench.target.probe import AUTOMATIC, TargetServer
from bench.text.brought import TraceArrival
from bench.text.prompts import LengthSpread, count_words, prompt

EndpointName = Literal["chat", "completions"]
PATHS: dict[EndpointName, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
VOICES = "/api/oqt/multi-model-query"
TEMPLATE_TOKENS = 64
"""Number of tokens that are reserved for what a chat template adds to a prompt."""
MARGIN = 1.25
"""Safety factor for the length of a prompt in tokens, which is estimated from its number of words."""
SEED_STRIDE = 10_000
"""Each prompt begins with a number. This is the difference between the numbers of one seed and of the next,
so that a run finds no prompt of an earlier run in the prefix cache.
"""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "language": {"type": "string", "enum": ["en", "sv"]},
        "score": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["title", "language", "score"],
    "additionalProperties": False,
}
"""JSON schema of the answers in the scenario `structured`."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Options of the user that modify a scenario."""

    seed: int = 0
    ask: Literal["auto", "names"] = "auto"
    """How the adapter for a language is chosen: with `auto`, OneSeek detects the language of the prompt; with
    `names`, each request names the adapter.
    """
    endpoint: EndpointName = "chat"
    """Endpoint of the requests: `chat` or `completions`. Text completions do not use the chat template."""
    prompt: LengthSpread | None = None
    answer: LengthSpread | None = None
    exact: bool = True
    """True if answers must have exactly the planned number of tokens. False if the model may end an answer
    earlier.
    """
    questions: Sequence[str] = field(default_factory=tuple[str, ...])
    """Prompts from a file of the user, which replace the prompts of the benchmark."""
    trace: Sequence[TraceArrival] = field(default_factory=tuple[TraceArrival, ...])
    """Arrival times and lengths from a file of the user, which replace those of the scenario."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The requests of a run, and notes about lengths that were reduced to fit the server's context."""

    requests: tuple[PlannedRequest, ...]
    notes: tuple[str, ...] = ()


class Planner:
    """Makes the requests of one scenario for one server. Raises `TargetError` if the server cannot serve the
    scenario.
    """

    def __init__(self, scenario: ServingScenario, target: TargetServer, options: PlanOptions) -> None:
        self._scenario, self._target, self._options = scenario, target, options
        self._random = Random(f"{scenario.name}/{options.seed}")
        self._notes: dict[str, None] = {}
        self._names = target.take_adapters(scenario.adapters) if scenario.target == "adapters" else ()
        # An object of the schema needs its tokens, whatever a user says of other answers.
        answer = scenario.answer if scenario.structured else options.answer or scenario.answer
        self._answers = self._bounded(answer, self._answer_room(), "answers", "tokens")
        if options.endpoint != "chat" and (scenario.voices or scenario.structured or scenario.turns > 1):
            raise ValueError(f"the scenario {scenario.name!r} needs chat requests; use --endpoint chat")
        if scenario.plain and target.adapters:
            raise TargetError(
                f"the scenario {scenario.name!r} needs a server without adapters, but {target.url} has "
                f"{len(target.adapters)}; use --start to start a server for it"
            )
        if scenario.voices and target.kind != "oneseek":
            raise TargetError(
                f"the scenario {scenario.name!r} needs a OneSeek server, but the kind of {target.url} is "
                f"{target.kind}; use another scenario or server"
            )

    def plan(self, count: int, times: Sequence[float] = ()) -> LoadPlan:
        """Return `count` requests. If `times` or a trace is given, return one request for each arrival in it
        instead.
        """
        trace = self._options.trace
        starts = [arrival.at for arrival in trace] if trace else list(times) or [0.0] * count
        turns = max(1, self._scenario.turns)
        requests: list[PlannedRequest] = []
        for number, at in enumerate(starts, 1):
            session = (number - 1) // turns + 1 if turns > 1 else 0
            sizes = trace[number - 1] if trace else None
            requests.append(self._request(number, at, session, sizes))
        return LoadPlan(tuple(requests), tuple(self._notes))

    def _request(self, number: int, at: float, session: int, sizes: TraceArrival | None) -> PlannedRequest:
        # A conversation stays in one language and with one adapter.
        random = (
            Random(f"{self._scenario.name}/{self._options.seed}/session {session}")
            if session
            else self._random
        )
        codes, shares = zip(*self._scenario.languages, strict=True)
        language = random.choices(codes, shares)[0]
        model, expects = self._asked(language, random)
        text = self._text(number, language, sizes)
        tokens = self._answers.draw(self._random)
        if sizes:
            tokens = max(1, min(sizes.answer_tokens, self._answer_room()))
        planned = PlannedRequest(
            number,
            PATHS[self._options.endpoint],
            {},
            model,
            "" if self._options.questions else language,
            expects,
            tokens,
            at,
            session,
        )
        if self._scenario.voices:
            return self._voices(planned, text)
        if self._scenario.structured:
            return self._structured(planned, text)
        body = self._body(model, text, tokens) | self._ending(tokens)
        cancel = max(1, tokens // 2) if self._random.random() < self._scenario.cancelled else 0
        return replace(planned, body=body, cancel_after=cancel, tokens=tokens if self._options.exact else 0)

    def _asked(self, language: str, random: Random) -> tuple[str, str]:
        """Return the value of the request's field `model`, and the name of the adapter that must answer. The
        name is empty if any adapter, or the base, may answer.
        """
        target = self._target
        if self._scenario.voices:
            return "voices", ""
        if self._scenario.target == "base":
            detects = self._scenario.plain and target.kind == "oneseek" and self._options.ask == "auto"
            return AUTOMATIC if detects else target.base, ""
        if self._scenario.target == "adapters":
            shares = zipf_shares(len(self._names), self._scenario.zipf)
            name = random.choices(self._names, shares)[0]
            return name, name
        if self._scenario.event == "swap" and language == "sv":
            return CHANGED, CHANGED
        name = target.adapter_for(language)
        if target.kind != "oneseek" or self._options.ask == "names":
            return name, name
        # Which language a brought prompt is in is not known here, so no adapter is expected.
        return AUTOMATIC, "" if self._options.questions else name

    def _text(self, number: int, language: str, sizes: TraceArrival | None) -> str:
        per_word = self._target.tokens_per_word[language]
        case = number + SEED_STRIDE * self._options.seed
        room = self._prompt_room(per_word)
        if self._options.questions:
            text = self._options.questions[(number - 1) % len(self._options.questions)]
            return " ".join(text.split()[:room]) if count_words(text) > room else text
        if sizes:
            return prompt(
                language, min(room, max(4, round(sizes.prompt_tokens / per_word))), case, self._random
            )
        long = self._random.random() < self._scenario.long_share
        spread = LONG if long else self._options.prompt or self._scenario.prompt
        spread = self._bounded(spread, room, "long prompts" if long else "prompts", "words")
        return prompt(language, spread.draw(self._random), case, self._random)

    def _voices(self, planned: PlannedRequest, text: str) -> PlannedRequest:
        names = [self._target.base, *(self._target.adapter_for(code) for code in ("en", "sv"))]
        body: dict[str, Any] = {
            "question": text,
            "models": names,
            "max_tokens": planned.tokens,
            "temperature": 0,
        }
        tokens = planned.tokens if self._options.exact else 0
        return replace(
            planned, path=VOICES, body=body | self._ending(planned.tokens), tokens=tokens, check="voices"
        )

    def _structured(self, planned: PlannedRequest, text: str) -> PlannedRequest:
        shape = {"type": "json_schema", "json_schema": {"name": "note", "strict": True, "schema": SCHEMA}}
        body = self._body(planned.model, text, planned.tokens) | {"response_format": shape}
        return replace(planned, body=body, tokens=0, check="json", keys=tuple(SCHEMA["required"]))

    def _body(self, model: str, text: str, tokens: int) -> dict[str, Any]:
        said = {"messages": [{"role": "user", "content": text}]}
        asked = {"prompt": text} if self._options.endpoint == "completions" else said
        return {"model": model, **asked, "max_tokens": tokens, "temperature": 0}

    def _ending(self, tokens: int) -> dict[str, Any]:
        if not self._options.exact:
            return {}
        # An end token that is only ignored has no text, so nothing of it could be timed.
        return {"min_tokens": tokens} if self._scenario.plain else {"ignore_eos": True}

    def _answer_room(self) -> int:
        """Return the maximum number of tokens in an answer: a third of the context that each turn of a
        conversation can use.
        """
        context = self._target.context or 1 << 20
        return max(1, (context // max(1, self._scenario.turns) - TEMPLATE_TOKENS) // 3)

    def _prompt_room(self, per_word: float) -> int:
        """Return the maximum number of words in a prompt that fits the server's context together with the
        longest answer.
        """
        context = self._target.context or 1 << 20
        share = context // max(1, self._scenario.turns)
        return max(8, int((share - TEMPLATE_TOKENS - self._answers.most) / (per_word * MARGIN)))

    def _bounded(self, spread: LengthSpread, most: int, what: str, unit: str) -> LengthSpread:
        if most < spread.most:
            context = self._target.context
            self._notes[
                f"{what} are limited to {most} {unit}, because the server's context has {context} tokens"
            ] = None
        return spread.at_most(most)


def zipf_shares(count: int, exponent: float) -> list[float]:
    """Return the share of the requests that each of `count` adapters gets by Zipf's law, the most popular
    first.
    """
    weights = [1 / rank**exponent for rank in range(1, count + 1)]
    return [weight / total for total in (sum(weights),) for weight in weights]
