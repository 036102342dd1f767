"""The result file of a GPU benchmark. It is saved after every measuring point, and a later run can continue
it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.gpu.scenarios import Point

VERSION = 1
SAME_HOST = ("gpu", "versions", "oneseek")


@dataclass(slots=True)
class ResultFile:
    """The results of a GPU benchmark so far, with a description of the machine."""

    path: Path
    settings: dict[str, Any]
    """Options that all measuring points in the file share. A later run can continue the file only with the
    same options.
    """
    host: dict[str, Any]
    commands: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """Date and command line of each run that added measuring points to the file."""
    starts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    points: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    notes: list[str] = field(default_factory=list[str])
    """Notes about measuring points that got fewer rounds or were left out."""

    def save(self) -> None:
        """Write the results to a temporary file, and rename it to `path`."""
        names = ("settings", "host", "commands", "starts", "points", "notes")
        whole = {"bench": "gpu", "version": VERSION} | {name: getattr(self, name) for name in names}
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(whole, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)

    def find(self, point: Point) -> dict[str, Any] | None:
        """Return the results of a measuring point. None if it was not measured."""
        key = (point.server, point.scenario, point.streams)
        return next(
            (row for row in self.points if (row["server"], row["scenario"], row["streams"]) == key), None
        )

    @classmethod
    def load(cls, path: Path) -> ResultFile:
        """Read a result file that `save` wrote. Raises `ValueError` if the file is anything else."""
        try:
            whole = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path} is not a result file of bench.gpu, because it is not JSON: {error}"
            ) from None
        if not isinstance(whole, dict) or (whole.get("bench"), whole.get("version")) != ("gpu", VERSION):
            raise ValueError(
                f"{path} is not a result file of bench.gpu in version {VERSION}; use a new --out"
            )
        del whole["bench"], whole["version"]
        return cls(path, **whole)

    def check(self, settings: dict[str, Any], host: dict[str, Any]) -> None:
        """Raise `ValueError` if new results would not be comparable with those in the file, because an
        option, the GPU or the version of a package differs.
        """
        for name, now in settings.items():
            if self.settings.get(name) != now:
                then = self.settings.get(name)
                raise ValueError(
                    f"the results in {self.path} were measured with {name} {then!r}, not {now!r}; use the "
                    "same value, or a new --out"
                )
        for name in SAME_HOST:
            if self.host.get(name) != host.get(name):
                then, now = self.host.get(name), host.get(name)
                raise ValueError(
                    f"the results in {self.path} are from a machine with {name} {then!r}, but this one has "
                    f"{now!r}; use a new --out"
                )
