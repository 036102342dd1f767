"""Write the dashboard's JSON. With `--check`, fail if the file differs from what the code generates."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.grafana.board import board_json

BOARD = Path(__file__).with_name("oneseek.json")


def main() -> None:
    """Write `oneseek.json` beside this file."""
    if "--check" in sys.argv[1:]:
        if BOARD.read_text(encoding="utf-8") != board_json():
            raise SystemExit(
                f"{BOARD.name} differs from what the code generates; to write it again, run: python -m "
                f"deploy.grafana"
            )
        return
    BOARD.write_text(board_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
