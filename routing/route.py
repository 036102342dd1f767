"""Which adapter answers a question: explicit choice, then language, then the configured policies. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from routing.accept import preferred_languages
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

MODEL = "model"
"""The field of a body that names what answers."""


class Reason(StrEnum):
    """What decided."""

    HEADER = "header"
    MODEL = "model"
    CONVERSATION = "conversation"
    LANGUAGE = "language"
    ACCEPT_LANGUAGE = "accept-language"
    DEFAULT = "default"
    UNDECIDED = "undecided"
    """The policy for undecided texts, by the likeliest language or by sending them to the base."""
    NO_ADAPTER = "no-adapter"
    """The policy for a language without an adapter."""


@dataclass(frozen=True, slots=True)
class Route:
    """The decision for one question."""

    target: Blend
    """(adapter name as asked for or alias, weight); empty is the base."""
    language: str | None
    """The decided language of the question, whatever the target; None is undecided."""
    confidence: float
    """Posterior probability of the likeliest language."""
    reason: Reason
    detection: Detection | None
    """What the decision saw; present after every `Router.decide`."""
    base: str | None = None
    """The base that a language or the default means by name, with an empty target."""


class AdapterNames(Protocol):
    """What the registry offers routing."""

    def is_adapter(self, name: str) -> bool:
        """Whether `name` is an adapter's alias, alias@version, or short name such as `sv`."""
        ...

    def is_base(self, name: str) -> bool:
        """Whether `name` is a base's name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteQuery:
    """What a request says that bears on its route."""

    header: str | None = None
    """`X-OneSeek-Adapter`; None where it was not sent."""
    model: str | None = None
    """The body's `model`; None is automatic."""
    turns: tuple[str, ...] = ()
    """The user's messages, oldest first; the last is the question."""
    accept_language: str | None = None
    fallback: str | None = None
    """Alias that answers if nothing but a policy would choose the base."""
    opening: tuple[str, ...] = ()
    """Texts that all requests of the conversation share, and as few others as may be."""


class UnknownNameError(LookupError):
    """A name that the catalogue does not know. `field` is where it stood."""

    def __init__(self, name: str, field: str) -> None:
        self.name = name if len(name) <= 80 else f"{name[:77]}…"
        self.field = field
        super().__init__(f"{field} names {self.name!r}, which is not served here; see GET /v1/models")


class Router:
    """Decides routes. Immutable, so that any thread may use it."""

    def __init__(self, settings: RoutingSettings, detector: Detector) -> None:
        self._settings = settings
        self._detector = detector

    def decide(self, question: RouteQuery, catalogue: AdapterNames) -> Route:
        """The route of `question`; raises `SelectionError` and `UnknownNameError`.

        Where header or model decide, the language is told for the receipt alone and never changes the choice.
        """
        asked = self._asked(question, catalogue)
        seen = self._detector.detect(question.turns, question.accept_language)
        if asked is not None:
            return Route(asked[0], seen.language, seen.confidence, asked[1], seen)
        name, reason = self._by_language(question, seen, catalogue)
        fallback = question.fallback
        if name is None and fallback is not None and catalogue.is_adapter(fallback):
            name = fallback
        if name is None or catalogue.is_adapter(name):
            target: Blend = () if name is None else ((name, 1.0),)
            return Route(target, seen.language, seen.confidence, reason, seen)
        return Route((), seen.language, seen.confidence, reason, seen, base=name)

    def voices(self, catalogue: AdapterNames) -> tuple[str, ...]:
        """The aliases that answer a language, in the order of the settings, each once."""
        aliases = dict.fromkeys(row.adapter for row in self._settings.languages)
        return tuple(alias for alias in aliases if catalogue.is_adapter(alias))

    def read(self, text: str) -> Detection:
        """The language of one text alone, such as an answer."""
        return self._detector.detect((text,))

    def _asked(self, question: RouteQuery, catalogue: AdapterNames) -> tuple[Blend, Reason] | None:
        """The explicit choice. A model's name has to be known even where the header decides."""
        model = None if question.model is None else named_choice(question.model, MODEL, catalogue)
        if question.header is not None:
            chosen = named_choice(question.header, HEADER, catalogue)
            return None if chosen is None else (chosen, Reason.HEADER)
        return None if model is None else (model, Reason.MODEL)

    def _by_language(
        self, question: RouteQuery, seen: Detection, catalogue: AdapterNames
    ) -> tuple[str | None, Reason]:
        """The adapter or the base by its name; None is the default base."""
        if seen.language is not None:
            decided = Reason.CONVERSATION if seen.from_history else Reason.LANGUAGE
            return self._for_language(seen.language, decided, catalogue)
        policy = self._settings.undecided
        if policy == "base":
            return None, Reason.UNDECIDED
        if policy == "likeliest" and seen.told and seen.confidence >= self._settings.threshold:
            return self._for_language(seen.likeliest, Reason.UNDECIDED, catalogue)
        if policy != "default":
            for language in preferred_languages(question.accept_language):
                name = self._settings.adapter(language)
                if _is_known(name, catalogue):
                    return name, Reason.ACCEPT_LANGUAGE
        return self._default(catalogue), Reason.DEFAULT

    def _for_language(
        self, language: str, reason: Reason, catalogue: AdapterNames
    ) -> tuple[str | None, Reason]:
        name = self._settings.adapter(language)
        if _is_known(name, catalogue):
            return name, reason
        without = None if self._settings.unsupported == "base" else self._default(catalogue)
        return without, Reason.UNDECIDED if reason is Reason.UNDECIDED else Reason.NO_ADAPTER

    def _default(self, catalogue: AdapterNames) -> str | None:
        """The configured default; the base while its adapter is not in the catalogue."""
        name = self._settings.default
        return name if name != BASE and _is_known(name, catalogue) else None


def _is_known(name: str | None, catalogue: AdapterNames) -> bool:
    return name is not None and (catalogue.is_adapter(name) or catalogue.is_base(name))


def named_choice(asked: str, field: str, catalogue: AdapterNames) -> Blend | None:
    """The adapters that `asked` means, the base if none; None if it leaves the choice to the server.

    Raises `UnknownNameError`, and `SelectionError` for a malformed header or blend.
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
    """`name` without its base, `base` for a base's own name. Raises `UnknownNameError`."""
    base, rest = split_base(name)
    if base is not None and not catalogue.is_base(base):
        raise UnknownNameError(name, field)
    if rest.lower() == BASE or catalogue.is_base(rest):
        return BASE
    if is_automatic(rest) or catalogue.is_adapter(rest):
        return rest
    raise UnknownNameError(name, field)
