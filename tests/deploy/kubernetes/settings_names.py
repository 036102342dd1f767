"""The names of the server's settings, as the chart's schema lists them.

python -m tests.deploy.kubernetes.settings_names     write them into values.schema.json
"""

from __future__ import annotations

import json
from pathlib import Path

from server.config.settings import OPTIONS
from tests.deploy.kubernetes.manifests import CHART

SCHEMA = CHART / "values.schema.json"
KEY = '"config": '


def names() -> list[str]:
    """Settings and sections at the left margin of oneseek.yaml, those that a template refuses included."""
    return sorted({option.path.partition(".")[0] for option in OPTIONS})


def with_names(text: str) -> str:
    """The schema with the part of `config` written anew, on one line."""
    seconds = {"type": "number", "minimum": 0}
    part = {
        "type": "object",
        "properties": {"drain_delay": seconds, "drain_seconds": seconds},
        "propertyNames": {"enum": names()},
    }
    lines = text.splitlines()
    (index,) = [number for number, line in enumerate(lines) if line.startswith(f"    {KEY}")]
    lines[index] = f"    {KEY}{json.dumps(part)},"
    return "\n".join(lines) + "\n"


def main(file: Path = SCHEMA) -> None:
    file.write_text(with_names(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
