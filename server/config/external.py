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
    """One service. Its key is never part of the settings, only the variable that holds it."""

    name: str
    """What requests call it."""
    url: str
    """Where its API begins, such as `https://api.example.com/v1`; `/chat/completions` is added."""
    model: str
    """What the service calls its model."""
    api_key_env: str | None = None
    """Environment variable that holds its key. Default: no key is sent."""
    timeout: float = 60.0
    """Seconds for a whole answer."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.lower() in _RESERVED:
            problem = f"{self.name[:80]!r} cannot be a name: use letters, digits, '.', '_' and '-'"
            raise SettingsError(SETTING, f"{problem}, and none of {', '.join(sorted(_RESERVED))}")
        self._check_url()
        if not self.model.strip():
            raise self._error("model", "is empty; give the name that the service has for its model")
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            # What was given may be the key itself.
            raise self._error("api_key_env", "is not the name of an environment variable, such as MY_KEY")
        if not 0 < self.timeout <= LONGEST_TIMEOUT:
            raise self._error("timeout", f"{self.timeout:g} is out of range; use 1 to {LONGEST_TIMEOUT:g}")

    def _check_url(self) -> None:
        remedy = "give http:// or https:// with a host, such as https://api.example.com/v1"
        try:
            parts = urlsplit(self.url)
            port_is_valid = parts.port is None or parts.port > 0
        except ValueError:
            raise self._error("url", f"is not a URL; {remedy}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid:
            raise self._error("url", f"is not a web address; {remedy}")
        if "@" in parts.netloc or parts.query or parts.fragment:
            problem = "holds a user, a query or a fragment, where keys end up in logs"
            raise self._error("url", f"{problem}; name the key's variable in api_key_env")
        if not self.url.isascii() or any(character.isspace() for character in self.url):
            raise self._error("url", f"holds a space or a character beyond ASCII; {remedy}")

    def _error(self, option: str, problem: str) -> SettingsError:
        return SettingsError(f"{SETTING}.{self.name}.{option}", problem)

    def read_key(self, environ: Mapping[str, str]) -> str | None:
        """Its key. Raises `SettingsError` if the variable is missing, empty or not a key."""
        if self.api_key_env is None:
            return None
        key = environ.get(self.api_key_env, "").strip()
        if not key:
            raise self._error("api_key_env", f"names {self.api_key_env}, which is not set or empty; set it")
        if not key.isascii() or not key.isprintable() or " " in key:
            problem = f"names {self.api_key_env}, whose value holds a space or a character beyond ASCII"
            raise self._error("api_key_env", f"{problem}; no key does")
        return key


def parse_external_models(tables: Mapping[str, str]) -> Mapping[str, ExternalModelOptions]:
    """The services by lower-case name, from a JSON object for each. Raises `SettingsError`."""
    if len(tables) > MAX_MODELS:
        raise SettingsError(SETTING, f"has {len(tables)} services; at most {MAX_MODELS} are possible")
    found: dict[str, ExternalModelOptions] = {}
    for name, text in tables.items():
        options = _parse(name, text)
        if name.lower() in found:
            raise SettingsError(SETTING, f"names {name!r} twice; upper and lower case are the same")
        found[name.lower()] = options
    return MappingProxyType(found)


def _parse(name: str, text: str) -> ExternalModelOptions:
    try:
        given: Any = json.loads(text)
    except ValueError:
        given = None
    path = f"{SETTING}.{name[:80]}"
    if not isinstance(given, dict):
        raise SettingsError(path, "is not a list of `key: value` lines with url and model")
    values = cast("dict[str, Any]", given)
    kinds: dict[str, type | tuple[type, ...]] = {
        "url": str, "model": str, "api_key_env": str, "timeout": (int, float)
    }  # fmt: skip
    for key, value in values.items():
        if key not in kinds:
            raise SettingsError(f"{path}.{key[:80]}", f"is not a setting{closest(key, kinds)}")
        if isinstance(value, bool) or not isinstance(value, kinds[key]):
            wanted = "a number of seconds" if key == "timeout" else "a text"
            raise SettingsError(f"{path}.{key}", f"is not {wanted}")
    for key in ("url", "model"):
        if key not in values:
            raise SettingsError(f"{path}.{key}", "is missing; every service needs url and model")
    return dataclasses.replace(
        ExternalModelOptions(name=name, url=values.pop("url"), model=values.pop("model")), **values
    )
