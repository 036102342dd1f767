"""Write the Grafana dashboard as oneseek.json. With `--check`, write nothing and fail if the file differs
from what the code generates.
"""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.grafana.board import board_json

BOARD = Path(__file__).with_name("oneseek.json")


def main() -> None:
    """Write the dashboard to `oneseek.json` in the folder of this file, or with `--check` compare it with
    that file.
    """
    if "--check" in sys.argv[1:]:
        if BOARD.read_text(encoding="utf-8") != board_json():
            raise SystemExit(
                f"{BOARD.name} differs from the dashboard that the code generates; run python -m "
                "deploy.grafana to write it again"
            )
        return
    BOARD.write_text(board_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
