"""Stands in for Microsoft's package `windowsml` 2.5.96, which loads a library of Windows.

What Windows would answer is in the file that WINDOWSML_MACHINE names: a list of providers. As on Windows, one
that is absent is downloaded when it is made ready, and one that is installed is part of no process at first.
`tests/device/test_windows_wheel.py` holds names and signatures to the real package's.
"""

from __future__ import annotations

import json
import os
from enum import IntEnum
from pathlib import Path
from typing import Any, cast


class EpReadyState(IntEnum):
    Ready = 0
    NotReady = 1
    NotPresent = 2


class EpCertification(IntEnum):
    Unknown = 0
    Certified = 1
    Uncertified = 2


class ExecutionProvider:
    def __init__(self, handle: str) -> None:
        self._handle = handle
        self._ready = False

    @property
    def name(self) -> str:
        return self._handle

    @property
    def version(self) -> str:
        return "" if self._recorded["state"] == "NotPresent" else self._recorded["version"]

    @property
    def library_path(self) -> str:
        return self._recorded["library"] if self._ready else ""

    @property
    def ready_state(self) -> EpReadyState:
        return EpReadyState.Ready if self._ready else EpReadyState[self._recorded["state"]]

    @property
    def certification(self) -> EpCertification:
        return EpCertification[self._recorded["certification"]]

    def ensure_ready(self) -> None:
        machine = _read()
        if machine[self._handle].get("fault"):
            raise OSError(machine[self._handle]["fault"])
        if machine[self._handle]["state"] == "NotPresent":
            machine[self._handle] |= {"state": "NotReady", "downloads": 1}
            _file().write_text(json.dumps(list(machine.values())), encoding="utf-8")
        self._ready = True

    @property
    def _recorded(self) -> dict[str, Any]:
        return _read()[self._handle]


class EpCatalog:
    def __init__(self) -> None:
        self._handle: list[str] | None = list(_read())

    def find_all_providers(self) -> list[ExecutionProvider]:
        if self._handle is None:
            raise RuntimeError("EpCatalog has been closed")
        return [ExecutionProvider(name) for name in self._handle]

    def close(self) -> None:
        self._handle = None


def _file() -> Path:
    return Path(os.environ["WINDOWSML_MACHINE"])


def _read() -> dict[str, dict[str, Any]]:
    if not _file().exists():
        raise OSError("[WinError -2147221164] Class not registered")
    machine = cast("list[dict[str, Any]]", json.loads(_file().read_text(encoding="utf-8")))
    return {provider["name"]: provider for provider in machine}
