"""Read the YAML files in which people write options, so that no line is silently lost or misread.

The settings file `oneseek.yaml` has its own reader, `server.config.file`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

_TEXTS = ("language",)
"""Keys whose value is text, whatever YAML makes of it: Norwegian's code `no` means false in YAML 1.1."""
_BOOL, _TEXT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:str"


def load_yaml(text: str) -> object:
    """Parse `text` with PyYAML's safe loader. Raises `yaml.YAMLError`, also for a key that a mapping has
    twice.
    """
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set[str]()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} is given twice; remove one of the two", problem_mark=key.start_mark
                )
            seen.add(key.value)
            if key.value in _TEXTS and value.tag == _BOOL:
                value.tag = _TEXT
        return super().construct_mapping(node, deep)
