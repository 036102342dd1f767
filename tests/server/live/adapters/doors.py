"""Every malformed adapter through `oneseek adapters add`, in a process of its own: `make corpus`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.adapters.malformed import corpus
from tests.conftest import write_tokenizer
from tests.device.bases import write_tiny_adapter, write_tiny_base
from tests.server.live.adapters.test_malformed import tree


def main() -> int:
    """Print what was not refused as it should be; 1 if there is anything."""
    wrong = number = 0
    with tempfile.TemporaryDirectory() as place:
        home, base, good = (Path(place) / name for name in ("home", "base", "good-v1"))
        write_tiny_base(base)
        write_tokenizer(base)
        write_tiny_adapter(good, 77, 4, ("q_proj", "v_proj"), 0.3)
        environ = {**os.environ, "ONESEEK_HOME": str(home), "PYTHONPATH": str(Path.cwd())}

        def run(folder: Path) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "server", "adapters", "add", str(folder.resolve())]
            command += ["--base-model", str(base.resolve())]
            return subprocess.run(
                command, cwd=place, env=environ, capture_output=True, text=True, timeout=600, check=False
            )

        assert run(good).returncode == 0
        before = tree(home / "registry", home / "ledger")
        for number, case in enumerate(corpus()):
            done = run(case.write(good, Path(place) / f"case-{number}"))
            lines = done.stderr.splitlines()
            fine = done.returncode in (1, 2) and len(lines) == 1 and lines[0].startswith("oneseek: ")
            if not fine or tree(home / "registry", home / "ledger") != before:
                wrong += 1
                print(case.name, done.returncode, done.stderr[-500:], flush=True)
        print(f"{number + 1} malformed adapters, {wrong} not refused as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
