"""A Windows machine as its catalogue shows it, for tests that run anywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.engines.embedded.runners.windowsml.catalogue import open_catalogue

RECORDED = Path(__file__).with_name("recorded")
"""What goes on the path of modules in place of Microsoft's package."""


def recorded_provider(
    name: str, state: str = "NotReady", certification: str = "Certified", **more: str
) -> dict[str, Any]:
    """A provider as Windows would answer: its state and certification by the names of their enumerations."""
    given = {"name": name, "state": state, "certification": certification, "version": "1.8.80.0"}
    return given | {"library": f"C:\\Program Files\\WindowsApps\\{name}.dll"} | more


class Machine:
    """The file that stands for Windows."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def offer(self, *providers: dict[str, Any]) -> None:
        """Have the catalogue offer these."""
        self.file.write_text(json.dumps(providers), encoding="utf-8")

    @property
    def downloads(self) -> list[str]:
        """The providers that were downloaded."""
        return [one["name"] for one in json.loads(self.file.read_text("utf-8")) if one.get("downloads")]


@contextmanager
def windows(file: Path, patch: pytest.MonkeyPatch) -> Generator[Machine]:
    """A machine whose catalogue this process opens."""
    patch.setenv("WINDOWSML_MACHINE", str(file))
    patch.syspath_prepend(str(RECORDED))
    patch.delitem(sys.modules, "windowsml", raising=False)
    open_catalogue.cache_clear()
    try:
        yield Machine(file)
    finally:
        open_catalogue.cache_clear()
        sys.modules.pop("windowsml", None)
