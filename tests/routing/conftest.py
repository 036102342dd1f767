from __future__ import annotations

import pytest

from routing.detect import ProfileDetector
from routing.settings import LanguageRow, RoutingSettings


@pytest.fixture(scope="session")
def settings() -> RoutingSettings:
    return RoutingSettings(languages=(LanguageRow("en", "oneseek-en"), LanguageRow("sv", "oneseek-sv")))


@pytest.fixture(scope="session")
def detector(settings: RoutingSettings) -> ProfileDetector:
    return ProfileDetector(settings)
