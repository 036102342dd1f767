"""`oneseek bench scenarios`: print the list of scenarios that a benchmark can run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from bench.scenarios.catalogue import SCENARIOS


def main(given: Sequence[str] | None = None) -> int:
    """Print the names and descriptions of all scenarios."""
    parser = argparse.ArgumentParser(description="List the scenarios, the requests of each, and its needs.")
    parser.add_argument("--json", action="store_true", help="Print every field of every scenario as JSON.")
    if parser.parse_args(given).json:
        print(json.dumps([asdict(scenario) for scenario in SCENARIOS], indent=2))
        return 0
    for scenario in SCENARIOS:
        needs = f" (needs {scenario.needs})" if scenario.needs else ""
        print(f"{scenario.name:<18}{scenario.says}{needs}")
    return 0
