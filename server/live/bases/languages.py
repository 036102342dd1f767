"""Looks up names on all bases of a server, and makes the routers that choose by language."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.errors import UnknownAdapterError
from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from adapters.registry.snapshot import Snapshot
from server.config.settings import RoutingOptions
from server.config.values import SettingsError, closest

if TYPE_CHECKING:
    from routing.detect import Detector
    from routing.route import Router
    from routing.settings import RoutingSettings
    from routing.topics.model import TopicModel


_PASSED_ON = (
    *("threshold", "undecided", "unsupported"),
    *("sure", "other_prior", "stay", "history", "hint"),
)
"""Settings under `routing` that the router gets under the same names."""
_INTRODUCTION = "en"
"""The language whose adapter answers a message that shows no language, unless `routing.default` is set."""


@dataclass(frozen=True, slots=True)
class ServedNames:
    """A snapshot of the names of all bases and their adapters, for routing on a server with several bases."""

    snapshots: tuple[Snapshot, ...]
    """The names of each base and its adapters, the default base first."""
    languages: Mapping[str, str]
    """Maps each language code to the alias or base that answers it."""

    def index_of(self, name: str) -> int | None:
        """Return the index of the base that serves `name`: a base's name, an adapter's, or a language code.
        None if the name is unknown.

        If `name` fits several, an adapter's alias takes precedence over a language code, and both over a
        base's name.
        """
        alias = name.strip().lower().partition("@")[0].strip()
        index = self._with_alias(alias)
        if index is not None:
            return index
        meant = self.languages.get(alias)
        return self.named_base(name) if meant is None else self.base_of(meant)

    def base_of(self, target: str) -> int | None:
        """Return the index of the base with this alias or name, such as one to which a language leads. None
        if there is none.
        """
        index = self._with_alias(target.lower())
        return self.named_base(target) if index is None else index

    def meaning(self, name: str) -> str:
        """Return `BASE:base` if `name` is a language code that a base itself answers, else `name`."""
        meant = self.languages.get(name.strip().lower())
        index = self.index_of(name) if meant is not None else None
        own = index is None or self.snapshots[index].is_adapter(name)
        return name if meant is None or own else f"{meant}:base"

    def named_base(self, name: str) -> int | None:
        """Return the index of the base with this name, or None."""
        asked = name.strip().lower()
        if asked == "base":
            return 0
        return next((index for index, names in enumerate(self.snapshots) if names.has_base(asked)), None)

    def is_adapter(self, name: str) -> bool:
        """True if an adapter of any base has this name."""
        index = self.index_of(name)
        return index is not None and self.snapshots[index].is_adapter(name)

    def is_base(self, name: str) -> bool:
        """True for a base's name, for `base`, and for a language code that a base itself answers."""
        index = self.index_of(name)
        return index is not None and not self.snapshots[index].is_adapter(name)

    def has_base(self, name: str) -> bool:
        """True for a base's name and for `base`, even if it is an adapter's name or a language code too."""
        return self.named_base(name) is not None

    def _with_alias(self, alias: str) -> int | None:
        return next((index for index, names in enumerate(self.snapshots) if alias in names.by_alias), None)


class LanguageRouting:
    """Makes the routers: one that chooses among the languages of all bases, and one for each base.

    If the server has only one base, its router is also the router for all languages. `configured` maps
    language codes to the alias or base that answers. `default` is the alias or base that answers if nothing
    else decides.
    """

    def __init__(
        self,
        served: Sequence[ServedAdapters],
        options: RoutingOptions,
        configured: Mapping[str, str],
        default: str | None,
    ) -> None:
        self._served = tuple(served)
        self._options = options
        self._configured = configured
        self._default = default
        self._lock = threading.Lock()
        self._routers: tuple[Router, tuple[Router, ...]] | None = None

    @property
    def server(self) -> Router:
        """The router over the languages of all bases. Raises `SettingsError` if a configured language cannot
        be detected.
        """
        return self._made()[0]

    def own(self, index: int) -> Router:
        """Return the router over the adapters of the base with this index. Raises `SettingsError` if a
        configured language cannot be detected.
        """
        return self._made()[1][index]

    def renew(self, index: int) -> Router:
        """Make all routers again for the current languages, which takes a moment. Returns the router of one
        base.

        Raises `SettingsError`.
        """
        with self._lock:
            self._routers = self._make()
            return self._routers[1][index]

    def names(self) -> ServedNames:
        """Return a snapshot of the names of all bases and their adapters."""
        return ServedNames(tuple(served.snapshot for served in self._served), self.languages())

    def languages(self) -> dict[str, str]:
        """Return the alias or base that answers each language code: the one in the settings, else the only
        one for that language.
        """
        return _spoken(self._served, self._configured)

    def check_weights(self) -> None:
        """Raise `SettingsError` if `routing.weights` has a language that no adapter here answers."""
        spoken = {*self.languages(), *_contested(self._served, self._configured)}
        for code in self._options.weights:
            if code not in spoken:
                known = ", ".join(sorted(spoken)) or "none"
                raise SettingsError(
                    "routing.weights", f"no adapter answers the language {code!r}; use one of these: {known}"
                )

    def describe_contested(self) -> list[str]:
        """Return a note for each language with adapters on several bases, if the settings choose none of them
        for the language.
        """
        contested = _contested(self._served, self._configured).items()
        return [
            f"several bases have adapters for the language {code} ({', '.join(found)}), so none of them "
            "answers it; "
            f"choose an adapter, such as --routing-languages {code}={found[0]}"
            for code, found in contested
        ]

    def _made(self) -> tuple[Router, tuple[Router, ...]]:
        with self._lock:
            if self._routers is None:
                self._routers = self._make()
            return self._routers

    def _make(self) -> tuple[Router, tuple[Router, ...]]:
        from routing.detect import ProfileDetector
        from routing.route import Router

        every = routing_settings(self.languages(), self._options, self._default)
        detector = ProfileDetector(every)
        server = Router(every, detector, self._topics(self._served, detector))
        if len(self._served) == 1:
            return server, (server,)
        single = (
            routing_settings(served.languages(), self._options, self._default) for served in self._served
        )
        return server, tuple(
            Router(own, detector, self._topics([served], detector))
            for own, served in zip(single, self._served, strict=True)
        )

    def _topics(self, bases: Sequence[ServedAdapters], detector: Detector) -> TopicModel | None:
        """Return the topics by which the router can choose an adapter, one for each adapter with example
        questions. None if there are none, or if topics are disabled.
        """
        from routing.topics.model import AdapterTopic, TopicModel

        adapters = [one for served in bases for one in served.snapshot.topics().values()]
        if not adapters or not self._options.topics:
            return None
        return TopicModel(
            [AdapterTopic(one.alias, one.examples, _answered(one, detector)) for one in adapters]
        )


def _answered(adapter: Adapter, detector: Detector) -> frozenset[str]:
    """Return the languages in which an adapter answers its topic: its own language, else each language of at
    least a tenth of its example questions. Empty: any language.
    """
    from routing.settings import detection_code

    if adapter.language is not None:
        return frozenset({detection_code(adapter.language)})
    found = [detector.detect((question,)).language for question in adapter.examples]
    return frozenset(code for code in found if code is not None and found.count(code) * 10 >= len(found))


def routing_settings(
    spoken: Mapping[str, str], options: RoutingOptions, default: str | None
) -> RoutingSettings:
    """Return the router's settings: the languages, and the values of `options`. `spoken` maps each language
    code to the alias or base that answers it.

    A language that cannot be detected is left out; requests can still name its adapter. Raises
    `SettingsError`.
    """
    from routing.settings import LanguageRow, RoutingSettings, detection_code

    for code in options.languages:
        if not _detectable(code):
            raise SettingsError(
                "routing.languages",
                f"the language {code!r} cannot be detected; remove it (requests can still name its adapter)",
            )
    rows = tuple(
        LanguageRow(code, name, options.weight(code)) for code, name in spoken.items() if _detectable(code)
    )
    given: dict[str, Any] = {
        name: getattr(options, name) for name in _PASSED_ON if getattr(options, name) is not None
    }
    if default is not None:
        given["default"] = default
    introduced = (name for code, name in spoken.items() if detection_code(code) == _INTRODUCTION)
    given["without_evidence"] = next(introduced, None)
    try:
        return RoutingSettings(languages=rows, **given)
    except ValueError as error:
        raise SettingsError("routing", str(error)) from None


def place_names(
    options: RoutingOptions, bases: Sequence[ServedAdapters]
) -> tuple[dict[str, tuple[int, str]], str | None]:
    """Find the adapters and bases that the settings of `routing` name.

    Returns a map from each language code to the index of its base and the alias or base's name, and the alias
    or base of `routing.default`. Raises `SettingsError` for a name that is not served.
    """
    languages = {code: _placed("routing.languages", name, bases) for code, name in options.languages.items()}
    if options.default in (None, "base"):
        return languages, options.default
    return languages, _placed("routing.default", options.default, bases)[1]


def _placed(setting: str, name: str, bases: Sequence[ServedAdapters]) -> tuple[int, str]:
    base, colon, alias = name.partition(":")
    if not colon:
        base, alias = "", name
    several = len(bases) > 1
    looked = [(i, one) for i, one in enumerate(bases) if not colon or one.base_name.lower() == base.lower()]
    if not looked:
        others = ", ".join(one.base_name for one in bases)
        raise SettingsError(
            setting, f"{name!r} names the base {base!r}, which is not served here; use one of: {others}"
        )
    for index, served in looked:
        if served.is_adapter(alias):
            return index, served.active(alias).alias
    for index, served in looked:
        if several and alias.lower() in (served.base_name.lower(), "base" if colon else ""):
            return index, served.base_name
    hints = difflib.get_close_matches(alias, [one for _, served in looked for one in served.aliases()])
    if setting == "routing.default":
        hint = closest(alias, [*(one for _, served in looked for one in served.aliases()), "base"])
        raise SettingsError(setting, f"adapter {name!r} is not served here{hint}")
    raise SettingsError(setting, str(UnknownAdapterError(name, hints)))


def _spoken(bases: Sequence[ServedAdapters], configured: Mapping[str, str]) -> dict[str, str]:
    contested = _contested(bases, configured)
    found = {code: alias for served in bases for code, alias in served.languages().items()}
    return {**{code: alias for code, alias in found.items() if code not in contested}, **configured}


def _contested(bases: Sequence[ServedAdapters], configured: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the languages with adapters on several bases for which the settings choose none: code → one
    alias on each base.
    """
    if len(bases) == 1:
        return {}
    speakers: dict[str, list[str]] = {}
    for served in bases:
        several = {code: aliases[0] for code, aliases in served.contested_languages().items()}
        for code, alias in {**several, **served.languages()}.items():
            speakers.setdefault(code, []).append(f"{served.base_name}:{alias}")
    return {code: found for code, found in speakers.items() if len(found) > 1 and code not in configured}


def _detectable(code: str) -> bool:
    from routing.evidence.profiles import profiled_languages
    from routing.reading.scripts import LATIN, script_of
    from routing.settings import detection_code

    code = detection_code(code)
    return code in profiled_languages() or script_of(code) != LATIN
