"""The `external_models:` section: OpenAI-compatible services that a question may go to."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urlsplit

from server.config.values import SettingsError, closest

SETTING = "external_models"
MAX_MODELS = 32
LONGEST_TIMEOUT = 3600.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RESERVED = frozenset({"base", "auto", "oneseek"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalModelOptions:
    """One external service. The settings name the variable that holds its API key, never the key itself."""

    name: str
    """Name of the service in requests."""
    url: str
    """Base URL of its API, such as `https://api.example.com/v1`, to which `/chat/completions` is added."""
    model: str
    """Name of the model at the service."""
    api_key_env: str | None = None
    """Environment variable that holds the API key. Default: send no key."""
    timeout: float = 60.0
    """Timeout in seconds for a whole answer."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.lower() in _RESERVED:
            raise SettingsError(
                SETTING,
                f"{self.name[:80]!r} is not a valid name of a service: use letters, digits, '.', '_' and "
                "'-', "
                f"but none of the reserved names {', '.join(sorted(_RESERVED))}",
            )
        self._check_url()
        if not self.model.strip():
            raise self._error("model", "is empty; give the model's name at the service")
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            # What was given may be the key itself.
            raise self._error(
                "api_key_env", "is not the name of an environment variable; use one such as MY_KEY"
            )
        if not 0 < self.timeout <= LONGEST_TIMEOUT:
            raise self._error("timeout", f"{self.timeout:g} is out of range; use 1 to {LONGEST_TIMEOUT:g}")

    def _check_url(self) -> None:
        remedy = "give http:// or https:// with a host, such as https://api.example.com/v1"
        try:
            parts = urlsplit(self.url)
            port_is_valid = parts.port is None or parts.port > 0
        except ValueError:
            raise self._error("url", f"the value is not a URL; {remedy}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid:
            raise self._error("url", f"the value is not an http or https URL; {remedy}")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise self._error(
                "url",
                "the URL has a user, a query or a fragment, which may hold a key that ends up in logs; "
                "remove that part, and name the variable that holds the key in api_key_env",
            )
        if not self.url.isascii() or any(character.isspace() for character in self.url):
            raise self._error("url", f"the URL has a space or a non-ASCII character; {remedy}")

    def _error(self, option: str, problem: str) -> SettingsError:
        return SettingsError(f"{SETTING}.{self.name}.{option}", problem)

    def read_key(self, environ: Mapping[str, str]) -> str | None:
        """The API key from `environ`. Raises `SettingsError` if the variable is unset or not a key."""
        if self.api_key_env is None:
            return None
        key = environ.get(self.api_key_env, "").strip()
        if not key:
            raise self._error(
                "api_key_env",
                f"names the variable {self.api_key_env}, which is unset or empty; set it to the key",
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise self._error(
                "api_key_env",
                f"the variable {self.api_key_env} has a space or a non-ASCII character; "
                "set the variable to the key alone",
            )
        return key


def parse_external_models(tables: Mapping[str, str]) -> Mapping[str, ExternalModelOptions]:
    """Parse services (JSON objects by name) into options by lower-case name. Raises
    `SettingsError`.
    """
    if len(tables) > MAX_MODELS:
        raise SettingsError(SETTING, f"has {len(tables)} services; the maximum is {MAX_MODELS}")
    found: dict[str, ExternalModelOptions] = {}
    for name, text in tables.items():
        options = _parse(name, text)
        if name.lower() in found:
            raise SettingsError(SETTING, f"holds {name!r} twice (case is ignored); rename one of them")
        found[name.lower()] = options
    return MappingProxyType(found)


def _parse(name: str, text: str) -> ExternalModelOptions:
    try:
        given: Any = json.loads(text)
    except ValueError:
        given = None
    path = f"{SETTING}.{name[:80]}"
    if not isinstance(given, dict):
        raise SettingsError(path, "is not a mapping; write url: and model: below the name")
    values = cast("dict[str, Any]", given)
    kinds: dict[str, type | tuple[type, ...]] = {
        "url": str, "model": str, "api_key_env": str, "timeout": (int, float)
    }  # fmt: skip
    for key, value in values.items():
        if key not in kinds:
            raise SettingsError(
                f"{path}.{key[:80]}", f"is not a setting of an external model{closest(key, kinds)}"
            )
        if isinstance(value, bool) or not isinstance(value, kinds[key]):
            wanted = "a number of seconds" if key == "timeout" else "a text"
            raise SettingsError(f"{path}.{key}", f"the value is not {wanted}; correct the value")
    for key in ("url", "model"):
        if key not in values:
            raise SettingsError(f"{path}.{key}", "is missing; give each service a url and a model")
    return dataclasses.replace(
        ExternalModelOptions(name=name, url=values.pop("url"), model=values.pop("model")), **values
    )
