"""The names of all bases of a server, and the routers over their languages."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.errors import UnknownAdapterError
from adapters.registry.served import ServedAdapters
from adapters.registry.snapshot import Snapshot
from server.config.settings import RoutingOptions
from server.config.values import SettingsError, closest

if TYPE_CHECKING:
    from routing.route import Router
    from routing.settings import RoutingSettings


@dataclass(frozen=True, slots=True)
class ServedNames:
    """Every name of every base at one moment; what routing is given if a server has several."""

    snapshots: tuple[Snapshot, ...]
    """One for each base, the default one first."""
    languages: Mapping[str, str]
    """Language code → the alias or the base that answers it."""

    def index_of(self, name: str) -> int | None:
        """The place of the base that `name` is, or that its adapter is on; None if it is not known.

        An alias goes before a base's name, and that before the short name of a language.
        """
        asked = name.strip().lower()
        alias = asked.partition("@")[0].strip()
        for index, names in enumerate(self.snapshots):
            if alias in names.by_alias:
                return index
        for index, names in enumerate(self.snapshots):
            if asked == names.base_name.lower():
                return index
        if asked == "base":
            return 0
        meant = self.languages.get(alias)
        return None if meant is None or meant.lower() == alias else self.index_of(meant)

    def meaning(self, name: str) -> str:
        """`name`, or the base that it means as the short name of a language."""
        meant = self.languages.get(name.strip().lower())
        index = self.index_of(name) if meant is not None else None
        return name if meant is None or index is None or self.snapshots[index].is_adapter(name) else meant

    def named_base(self, name: str) -> int | None:
        """The place of the base with this name, or None."""
        asked = name.strip().lower()
        if asked == "base":
            return 0
        found = (index for index, names in enumerate(self.snapshots) if names.base_name.lower() == asked)
        return next(found, None)

    def is_adapter(self, name: str) -> bool:
        """Whether an adapter of any base has this name."""
        index = self.index_of(name)
        return index is not None and self.snapshots[index].is_adapter(name)

    def is_base(self, name: str) -> bool:
        """Whether it is a base's name, `base`, or a language that a base alone answers."""
        index = self.index_of(name)
        return index is not None and not self.snapshots[index].is_adapter(name)


class LanguageRouting:
    """One router that decides over the languages of every base, and one for each base by itself.

    With one base these are the same. `configured` is language code → alias or base's name; `default` is the
    alias or the base that answers if nothing else decides.
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
        """Decides for all bases. Raises `SettingsError` for a configured language that is not detectable."""
        return self._made()[0]

    def own(self, index: int) -> Router:
        """Decides among the adapters of one base alone. Raises as `server` does."""
        return self._made()[1][index]

    def renew(self, index: int) -> Router:
        """Routers for the languages that there are now, which takes a moment; `own` of a base. Raises so."""
        with self._lock:
            self._routers = self._make()
            return self._routers[1][index]

    def names(self) -> ServedNames:
        """Every name at this moment."""
        return ServedNames(tuple(served.snapshot for served in self._served), self.languages())

    def languages(self) -> dict[str, str]:
        """Language code → the alias or the base that answers: as configured, else the only one."""
        return _spoken(self._served, self._configured)

    def describe_contested(self) -> list[str]:
        """A note for each language that is spoken on several bases, and is configured for none."""
        contested = _contested(self._served, self._configured).items()
        return [
            f"adapters on several bases speak {code} ({', '.join(found)}), so none is chosen; say which "
            f"with --routing-languages {code}={found[0]}"
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
        server = Router(every, detector)
        if len(self._served) == 1:
            return server, (server,)
        single = (
            routing_settings(served.languages(), self._options, self._default) for served in self._served
        )
        return server, tuple(Router(own, detector) for own in single)


def routing_settings(
    spoken: Mapping[str, str], options: RoutingOptions, default: str | None
) -> RoutingSettings:
    """What routing is told: a row for each language of `spoken`, and whatever the settings say.

    A language that detection does not know gets no row; its adapter can still be asked for by name.
    """
    from routing.settings import LanguageRow, RoutingSettings

    for code in options.languages:
        if not _detectable(code):
            raise SettingsError("routing.languages", f"{code!r} is a language that detection does not know")
    rows = tuple(LanguageRow(code, name) for code, name in spoken.items() if _detectable(code))
    given: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("threshold", "undecided", "unsupported")
        if getattr(options, name) is not None
    }
    if default is not None:
        given["default"] = default
    try:
        return RoutingSettings(languages=rows, **given)
    except ValueError as error:
        raise SettingsError("routing", str(error)) from None


def place_names(
    options: RoutingOptions, bases: Sequence[ServedAdapters]
) -> tuple[dict[str, tuple[int, str]], str | None]:
    """Whom the settings mean: language code → (place of the base, alias or base's name), and the default.

    Raises `SettingsError`.
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
        raise SettingsError(setting, f"{name!r} names the base {base!r}, which is not served; use {others}")
    for index, served in looked:
        if served.is_adapter(alias):
            return index, served.active(alias).alias
    for index, served in looked:
        if several and alias.lower() in (served.base_name.lower(), "base" if colon else ""):
            return index, served.base_name
    hints = difflib.get_close_matches(alias, [one for _, served in looked for one in served.aliases()])
    if setting == "routing.default":
        hint = closest(alias, [*(one for _, served in looked for one in served.aliases()), "base"])
        raise SettingsError(setting, f"{name!r} is no adapter that is served here{hint}")
    raise SettingsError(setting, str(UnknownAdapterError(name, hints)))


def _spoken(bases: Sequence[ServedAdapters], configured: Mapping[str, str]) -> dict[str, str]:
    contested = _contested(bases, configured)
    found = {code: alias for served in bases for code, alias in served.languages().items()}
    return {**{code: alias for code, alias in found.items() if code not in contested}, **configured}


def _contested(bases: Sequence[ServedAdapters], configured: Mapping[str, str]) -> dict[str, list[str]]:
    """Language code → an alias of each base, where several bases have one."""
    if len(bases) == 1:
        return {}
    speakers: dict[str, list[str]] = {}
    for served in bases:
        several = {code: aliases[0] for code, aliases in served.contested_languages().items()}
        for code, alias in {**several, **served.languages()}.items():
            speakers.setdefault(code, []).append(f"{served.base_name}:{alias}")
    return {code: found for code, found in speakers.items() if len(found) > 1 and code not in configured}


def _detectable(code: str) -> bool:
    from routing.profiles import profiled_languages
    from routing.scripts import LATIN, script_of
    from routing.settings import detection_code

    code = detection_code(code)
    return code in profiled_languages() or script_of(code) != LATIN
