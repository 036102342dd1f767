"""What `oneseek doctor` examines: the settings and the environment that a server would start with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.config.settings import CONFIG_FILE, ResolvedSettings, Settings
from server.config.values import SettingsError


@dataclass(frozen=True, slots=True)
class Subject:
    """The installation that `oneseek doctor` examines, as `oneseek serve` would find it."""

    resolved: ResolvedSettings
    error: SettingsError | None
    """The error if the settings are invalid; `resolved` then holds the default settings. None if they are
    valid.
    """
    environ: Mapping[str, str]
    root: Path
    """The directory in which the command runs. Relative paths in the settings start from it."""
    file: Path = Path(CONFIG_FILE)
    """The settings file, which may be missing."""

    @property
    def settings(self) -> Settings:
        """The settings that a server would start with here."""
        return self.resolved.settings
