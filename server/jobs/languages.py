"""Detect the language of texts for training and evaluation, as the router does."""

from __future__ import annotations

from collections.abc import Iterable

from adapters import names
from adapters.evaluation.judge import LanguageOf
from server.config.values import SettingsError

_OFFERED = ("en", "sv")
"""Languages that the detector always considers, besides those that the caller names."""


def language_of_text(codes: Iterable[str] = ()) -> LanguageOf:
    """Return a function that detects a text's language, with `codes` among the candidates. The function
    returns None if it cannot decide.

    Raises `ValueError` for a code that routing cannot detect.
    """
    from routing.detect import ProfileDetector
    from routing.evidence.profiles import ProfileError
    from routing.settings import LanguageRow, RoutingSettings, detection_code

    asked = {detection_code(code): code for code in map(names.language, codes)}
    wanted = dict.fromkeys((*asked, *_OFFERED))
    try:
        rows = tuple(LanguageRow(code, code) for code in wanted)
        detector = ProfileDetector(RoutingSettings(languages=rows))
    except ProfileError as error:
        raise ValueError(str(error)) from None

    def tell(text: str) -> str | None:
        found = detector.detect((text,)).language
        return None if found is None else asked.get(found, found)

    return tell


def detector_for(language: str) -> LanguageOf:
    """Return a function that detects a text's language, with `language` among the candidates.

    Raises `SettingsError`, which names the option, if routing cannot detect `language`.
    """
    try:
        return language_of_text([language])
    except ValueError as error:
        raise SettingsError("language", str(error)) from None
