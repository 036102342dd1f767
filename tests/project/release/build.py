"""Builds the wheel and the sdist, twice, and tries them: what `make release` runs.

    python -m tests.project.release.build [--skip-serve]

Both builds have to be equal to the byte. A clean environment installs the wheel and serves from it, in an
empty folder and home, to the first answer. What is built lies in dist/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from pathlib import Path

from tests.project.documents.pages import ROOT

DIST = ROOT / "dist"
READY_SECONDS = 120
QUESTION = {"model": "oneseek", "messages": [{"role": "user", "content": "Vem är du?"}], "max_tokens": 16}


def run(*command: str | Path, cwd: Path = ROOT, **environ: str) -> str:
    """Output of a command. Raises `CalledProcessError`."""
    env = {**os.environ, **environ}
    return subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout


def build(output: Path, epoch: str) -> dict[str, str]:
    """Build both into `output`; name → SHA-256."""
    run(sys.executable, "-m", "build", "--outdir", output, SOURCE_DATE_EPOCH=epoch)
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.iterdir())
        if path.suffix in (".whl", ".gz")
    }


def build_twice() -> Path:
    """The wheel in dist/. Exits if the two builds differ."""
    epoch = run("git", "log", "-1", "--format=%ct").strip()
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as again:
        first, second = build(DIST, epoch), build(Path(again), epoch)
    if first != second:
        sys.exit(f"release: two builds of one commit differ:\n{first}\n{second}")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for name, digest in first.items():
        print(f"{digest}  dist/{name}")
    return DIST / f"oneseek-{version}-py3-none-any.whl"


def serve(wheel: Path) -> None:
    """Install `wheel` into a clean environment and ask a server of it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run(sys.executable, "-m", "venv", folder / "env")
        scripts = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")
        run(scripts / "python", "-m", "pip", "install", "--quiet", wheel)
        empty = folder / "empty"
        empty.mkdir()
        print(run(scripts / "oneseek", "--version", cwd=empty).strip())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        env = {**os.environ, "ONESEEK_HOME": str(folder / "home")}
        server = subprocess.Popen([scripts / "oneseek", "serve", "--port", str(port)], cwd=empty, env=env)
        try:
            print(ask(f"http://127.0.0.1:{port}", server))
        finally:
            server.terminate()
            if server.wait(timeout=60) != 0:
                sys.exit(f"release: the server ended with {server.returncode}")


def ask(url: str, server: subprocess.Popen[bytes]) -> str:
    """The first answer. Exits if there is none in time."""
    end = time.monotonic() + READY_SECONDS
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{url}/ready", timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    else:
        sys.exit("release: the server was not ready in time")
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(QUESTION).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def main() -> None:
    """Build, compare, install and serve."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--skip-serve", action="store_true", help="only build")
    arguments = parser.parse_args()
    wheel = build_twice()
    if not arguments.skip_serve:
        serve(wheel)


if __name__ == "__main__":
    main()
