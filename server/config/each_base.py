"""List the bases in a server's settings, each with the settings that apply to it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from server.config.bases import UTILIZATION, BaseOptions
from server.config.sections import WITHOUT_OPTIONS, EngineOptions
from server.config.settings import Settings
from server.config.values import SettingsError


@dataclass(frozen=True, slots=True)
class BaseSettings:
    """A base of the server, with the settings that apply to it."""

    name: str | None
    """Public name of the base. None: the name of its folder."""
    settings: Settings
    """The server's settings, with this base's own values in place and `bases` empty."""
    on_demand: bool = False


def each_base(settings: Settings) -> tuple[BaseSettings, ...]:
    """Return the bases in the settings, the default base first. If `bases` is empty, return the single
    base.
    """
    if not settings.bases:
        return (BaseSettings(None, settings),)
    default = (settings.default_base or next(iter(settings.bases))).lower()
    order = sorted(settings.bases, key=lambda name: name.lower() != default)
    return tuple(
        BaseSettings(name, base_settings(settings, name), settings.bases[name].on_demand) for name in order
    )


def default_settings(settings: Settings) -> Settings:
    """Return the settings that apply to the default base."""
    return each_base(settings)[0].settings


def one_base(settings: Settings, path: Path) -> Settings:
    """Return a copy of `settings` with the single base in the folder `path`."""
    return replace(settings, base_model=path, bases={}, default_base=None, max_loaded_bases=None)


def base_settings(settings: Settings, name: str) -> Settings:
    """Return the settings that apply to the base `name`. Raises `SettingsError` that names the setting of
    this base.
    """
    options = settings.bases[name]
    own = {one.name for one in fields(settings)}
    changes: dict[str, Any] = {
        one.name: getattr(options, one.name)
        for one in fields(options)
        if one.name in own and getattr(options, one.name) is not None
    }
    engine = _engine(settings.engine, options)
    changes |= {"base_model": options.path, "bases": {}, "default_base": None, "max_loaded_bases": None}
    changes |= {"engine": engine, "adapters": options.adapters or ()}
    try:
        return replace(settings, **changes)
    except SettingsError as error:
        raise name_base(error, name, settings) from None


def name_base(error: SettingsError, base: str, settings: Settings) -> SettingsError:
    """Return `error`, which is about the settings that apply to `base`, with the name of the setting that has
    the value: one under `bases.NAME`, or one of the whole server.
    """
    options, field = settings.bases[base], error.name.partition(".")[0]
    own = {"base_model": options.path, "engine": options.engine or options.gpu_memory_utilization}
    if own.get(field, getattr(options, field, None)) is not None:
        name = "path" if field == "base_model" else error.name
        return SettingsError(f"bases.{base}.{name}", error.problem, error.origin)
    return SettingsError(error.name, f"{error.problem} (base {base})", error.origin)


def _engine(server: EngineOptions, options: BaseOptions) -> EngineOptions:
    own = options.engine or EngineOptions()
    kind = server.kind if own.kind == "auto" else own.kind
    foreign = kind in WITHOUT_OPTIONS and server.kind not in WITHOUT_OPTIONS
    extra = {} if foreign else dict(server.options)
    extra |= own.options
    if options.gpu_memory_utilization is not None:
        extra[UTILIZATION] = f"{options.gpu_memory_utilization:g}"
    return EngineOptions(kind=kind, options=extra)
