"""Decide which adapter answers: the request's explicit choice first, then topic and language, then the
configured policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from routing.accept import language_qualities
from routing.detect import Detection, Detector
from routing.selection import (
    AUTO,
    BASE,
    HEADER,
    Blend,
    SelectionError,
    is_automatic,
    parse_selection,
    split_base,
    stands_alone,
)
from routing.settings import RoutingSettings
from routing.system import answer_language
from routing.topics.model import TopicMatch, TopicModel

_SYSTEM_SHARE = 0.25
"""The system prompt's language decides the route only if the user's text gives it at least this
probability.
"""
_HEADER_SHARE = 0.5
"""Accept-Language decides the route only if the user's text gives its languages together at least this
probability.
"""
MODEL = "model"
"""Field of the request body that names the adapter or base."""


class Reason(StrEnum):
    """The rule that decided which adapter answers. The answer's `X-OneSeek-*` headers name the rule."""

    HEADER = "header"
    MODEL = "model"
    CONVERSATION = "conversation"
    LANGUAGE = "language"
    TOPIC = "topic"
    """The topic decided: the question is like an adapter's example questions."""
    SYSTEM = "system"
    """The system prompt decided: it asks for a language, or is written in that language."""
    ACCEPT_LANGUAGE = "accept-language"
    DEFAULT = "default"
    UNDECIDED = "undecided"
    """The language is undecided, and the policy for undecided texts chose: the likeliest language's adapter,
    or the base.
    """
    NO_ADAPTER = "no-adapter"
    """The text's language has no adapter, and the policy for such languages chose."""


@dataclass(frozen=True, slots=True)
class Route:
    """The routing decision for one request."""

    target: Blend
    """Pairs of (requested adapter name or alias, weight); empty for the base."""
    language: str | None
    """The detected language of the question, even if the request named its adapter itself; None
    if undecided.
    """
    confidence: float
    """Probability of the most likely language, given the user's text."""
    reason: Reason
    detection: Detection | None
    """The whole result of language detection. `Router.decide` always sets it."""
    topic: TopicMatch | None = None
    """Topic of the question; None unless adapters have examples and the request names no adapter."""
    base: str | None = None
    """Name of the base that answers, if the settings choose a base for this language or as the default.
    `target` is empty then.
    """


class AdapterNames(Protocol):
    """Tells the router which names are adapters and which are bases."""

    def is_adapter(self, name: str) -> bool:
        """True if `name` is an adapter's alias, alias@version, or short name such as `sv`."""
        ...

    def is_base(self, name: str) -> bool:
        """True if `name` is a base's name, and not an adapter's too."""
        ...

    def has_base(self, name: str) -> bool:
        """True if `name` is a base's name, as in `BASE:adapter`, even if it is an adapter's too."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteQuery:
    """The parts of a request that affect its route."""

    header: str | None = None
    """Value of the header `X-OneSeek-Adapter`. None if it was not sent."""
    model: str | None = None
    """Value of `model` in the request body. None leaves the choice to the router."""
    turns: tuple[str, ...] = ()
    """The user's messages, oldest first; the last is the question."""
    accept_language: str | None = None
    system: str | None = None
    """The application's system prompt; None if there is none."""
    fallback: str | None = None
    """Alias of the adapter to use if the policies, not the request, would choose the base."""
    opening: tuple[str, ...] = ()
    """Texts that identify the conversation: all of its requests contain them, and few other requests do."""


class UnknownNameError(LookupError):
    """The request names an adapter or base that is not served. `field` is the body field or header that
    contained the name.
    """

    def __init__(self, name: str, field: str) -> None:
        self.name = name if len(name) <= 80 else f"{name[:77]}…"
        self.field = field
        super().__init__(
            f"{field} names {self.name!r}, which this server does not serve; GET /v1/models lists all names"
        )


class Router:
    """Decides routes of requests. Immutable, so that any thread may use it."""

    def __init__(
        self, settings: RoutingSettings, detector: Detector, topics: TopicModel | None = None
    ) -> None:
        self._settings = settings
        self._detector = detector
        self._topics = topics

    def decide(self, question: RouteQuery, catalogue: AdapterNames) -> Route:
        """Decide the route of `question`. Raises `SelectionError` or `UnknownNameError`.

        If the request's header or `model` names the adapter, the language is detected only to report it in
        the answer's `X-OneSeek-*` headers.
        """
        asked = self._asked(question, catalogue)
        seen = self._detector.detect(question.turns, question.accept_language)
        if asked is not None:
            return Route(asked[0], seen.language, seen.confidence, asked[1], seen)
        topic = self._topic_of(question.turns, seen)
        if (
            topic is not None
            and topic.confidence >= self._settings.sure
            and catalogue.is_adapter(topic.likeliest)
        ):
            chosen: Blend = ((topic.likeliest, 1.0),)
            return Route(chosen, seen.language, seen.confidence, Reason.TOPIC, seen, topic)
        name, reason = self._by_language(question, seen, catalogue)
        fallback = question.fallback
        if name is None and fallback is not None and catalogue.is_adapter(fallback):
            name = fallback
        if name is None or catalogue.is_adapter(name):
            target: Blend = () if name is None else ((name, 1.0),)
            return Route(target, seen.language, seen.confidence, reason, seen, topic)
        return Route((), seen.language, seen.confidence, reason, seen, topic, base=name)

    def voices(self, catalogue: AdapterNames) -> tuple[str, ...]:
        """Return the served adapters that are configured for languages, by alias, in the settings' order and
        without duplicates.
        """
        aliases = dict.fromkeys(row.adapter for row in self._settings.languages)
        return tuple(alias for alias in aliases if catalogue.is_adapter(alias))

    def read(self, text: str) -> Detection:
        """Detect the language of a single text, such as an answer."""
        return self._detector.detect((text,))

    def _topic_of(self, turns: Sequence[str], seen: Detection) -> TopicMatch | None:
        """Return the topic match of the question, or of the latest earlier message that gives evidence of a
        topic. None if no adapter has a topic in this language.
        """
        if self._topics is None:
            return None
        found: TopicMatch | None = None
        for turn in reversed(turns[-self._settings.history :]):
            found = self._topics.match(turn, seen.language)
            if found is None or found.told:
                break
        return found

    def _asked(self, question: RouteQuery, catalogue: AdapterNames) -> tuple[Blend, Reason] | None:
        """Return the adapters that the request names and the reason; None if it names none. A name in `model`
        must be known even if the header decides.
        """
        model = None if question.model is None else named_choice(question.model, MODEL, catalogue)
        if question.header is not None:
            chosen = named_choice(question.header, HEADER, catalogue)
            return None if chosen is None else (chosen, Reason.HEADER)
        return None if model is None else (model, Reason.MODEL)

    def _by_language(
        self, question: RouteQuery, seen: Detection, catalogue: AdapterNames
    ) -> tuple[str | None, Reason]:
        """Choose by the detected language. Returns the name of an adapter or a base, None for the default
        base, and the reason.
        """
        if seen.language is not None:
            decided = Reason.CONVERSATION if seen.from_history else Reason.LANGUAGE
            return self._for_language(seen.language, decided, catalogue)
        policy = self._settings.undecided
        if policy == "base":
            return None, Reason.UNDECIDED
        if policy == "likeliest" and seen.told and seen.confidence >= self._settings.threshold:
            return self._for_language(seen.likeliest, Reason.UNDECIDED, catalogue)
        system = answer_language(question.system, self._detector) if question.system else None
        if policy != "default":
            name = self._by_system(system, seen, catalogue)
            if name is not None:
                return name, Reason.SYSTEM
            name = self._by_header(question.accept_language, seen, catalogue)
            if name is not None:
                return name, Reason.ACCEPT_LANGUAGE
        asked = system or language_qualities(question.accept_language)
        name = self._default(catalogue) if seen.told or asked else self._without_evidence(question, catalogue)
        return name, Reason.DEFAULT

    def _by_system(self, language: str | None, seen: Detection, catalogue: AdapterNames) -> str | None:
        """Return the adapter of the system prompt's language, unless the user's text makes it unlikely."""
        if seen.told and seen.scores.get(language or "", 0.0) < _SYSTEM_SHARE:
            return None
        name = self._settings.adapter(language)
        return name if _is_known(name, catalogue) else None

    def _by_header(self, accept_language: str | None, seen: Detection, catalogue: AdapterNames) -> str | None:
        """Return the adapter of the language in Accept-Language with the highest product of q value and
        probability.

        Returns None if that language has no adapter. Also returns None if the text makes the languages
        unlikely: with policy `likeliest`, they must together have at least half of the probability. If the
        text gives no evidence, only the q values of languages with an adapter count.
        """
        qualities = language_qualities(accept_language)
        names = {
            code: name for code in qualities if _is_known(name := self._settings.adapter(code), catalogue)
        }
        if not names:
            return None
        if not seen.told:
            return names[max(names, key=qualities.__getitem__)]
        held = sum(seen.scores.get(code, 0.0) for code in qualities)
        if self._settings.undecided == "likeliest" and held < _HEADER_SHARE:
            return None
        return names.get(max(qualities, key=lambda code: qualities[code] * seen.scores.get(code, 0.0)))

    def _for_language(
        self, language: str, reason: Reason, catalogue: AdapterNames
    ) -> tuple[str | None, Reason]:
        name = self._settings.adapter(language)
        if _is_known(name, catalogue):
            return name, reason
        without = None if self._settings.unsupported == "base" else self._default(catalogue)
        return without, Reason.UNDECIDED if reason is Reason.UNDECIDED else Reason.NO_ADAPTER

    def _default(self, catalogue: AdapterNames) -> str | None:
        """Return the configured default, an adapter or a base. Return None, which means the default base, if
        no default is configured or it is not served.
        """
        name = self._settings.default
        return name if name != BASE and _is_known(name, catalogue) else None

    def _without_evidence(self, question: RouteQuery, catalogue: AdapterNames) -> str | None:
        """Return the adapter for a request that gives no evidence of a language: the configured default, or
        else the setting `without_evidence`. Return None for the base.
        """
        fallback = question.fallback is not None and catalogue.is_adapter(question.fallback)
        if self._settings.default is not None or fallback:
            return self._default(catalogue)
        name = self._settings.without_evidence
        return name if _is_known(name, catalogue) else None


def _is_known(name: str | None, catalogue: AdapterNames) -> bool:
    return name is not None and (catalogue.is_adapter(name) or catalogue.is_base(name))


def named_choice(asked: str, field: str, catalogue: AdapterNames) -> Blend | None:
    """Return the adapters, with weights, that `asked` names. The result is empty for the base, and None if
    the server is to choose.

    Raises `UnknownNameError`, or `SelectionError` for a malformed header or blend.
    """
    try:
        chosen = parse_selection(asked, field)
    except SelectionError:
        if field == MODEL and "=" not in asked:
            raise UnknownNameError(asked, field) from None
        raise
    if chosen == AUTO:
        return None
    found = [(_known(name, field, catalogue), weight) for name, weight in chosen]
    alone = [name for name, _ in found if name == BASE or is_automatic(name)]
    if not alone:
        return tuple(found)
    if len(found) > 1 or "=" in asked:
        raise SelectionError(asked, stands_alone(chosen[0][0]), field)
    return () if alone[0] == BASE else None


def _known(name: str, field: str, catalogue: AdapterNames) -> str:
    """Return `name` without the prefix `BASE:`, or the word `base` if `name` is the name of a base. Raises
    `UnknownNameError` if neither an adapter nor a base of this name is served.
    """
    base, rest = split_base(name)
    if base is not None and not catalogue.has_base(base):
        raise UnknownNameError(name, field)
    if rest.lower() == BASE or catalogue.is_base(rest):
        return BASE
    if is_automatic(rest) or catalogue.is_adapter(rest):
        return rest
    raise UnknownNameError(name, field)
