"""A real Prometheus 2 and its promtool, as Debian packages them, unpacked into a folder and never installed.

    python -m tests.deploy.prometheus       print the path of its program, after fetching it if need be

Where it is installed already, or this is no Debian, name the program: PROMETHEUS=/usr/bin/prometheus.
Only the standard library, so that any Python of 3.11 or later can run it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from tests.device.mesa import CONFIGURATION, KEYRING, debian_codename, mirror_of
from tests.environments import alone, default_cache, print_line, run

PACKAGE = "prometheus"
MAJOR = "2"
VARIABLE = "PROMETHEUS"
PROGRAMS = ("promtool", "prometheus")
"""What is kept of the package."""


def main() -> None:
    """Print the program's path; everything else goes to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cache", default="", help="folder of what is fetched (default: ~/.cache/oneseek)")
    cache = Path(parser.parse_args().cache or default_cache()).expanduser().absolute()
    if named := os.environ.get(VARIABLE):
        print(named)
        return
    cache.mkdir(parents=True, exist_ok=True)
    codename = debian_codename()
    with alone(cache):
        program = cache / f"{PACKAGE}-{codename}" / "prometheus"
        if not all(program.with_name(name).exists() for name in PROGRAMS):
            fetch(program.parent, codename)
    print(program)


def fetch(cached: Path, codename: str) -> None:
    """Download, look at the version, and keep the programs alone: the web pages are not used."""
    print_line(f"fetching {PACKAGE} from Debian's packages (once; 40 MB)")
    with tempfile.TemporaryDirectory(prefix="oneseek-prometheus-") as scratch:
        folder = Path(scratch)
        archive = _download(folder, codename)
        found = re.match(rf"{PACKAGE}_({MAJOR}\.\d+)", archive.name)
        if found is None:
            raise SystemExit(f"oneseek: {archive.name} is not Prometheus {MAJOR}; name one in {VARIABLE}")
        print_line(f"Prometheus {found[1]} from Debian's packages")
        run("dpkg-deb", "--extract", str(archive), str(folder / "root"))
        cached.mkdir(exist_ok=True)
        for name in PROGRAMS:
            part = cached / f"{name}.part"
            shutil.copy2(folder / "root" / "usr" / "bin" / name, part)
            part.rename(cached / name)


def _download(folder: Path, codename: str) -> Path:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    (folder / "sources.list").write_text(f"deb {signed}{mirror_of(codename)} {codename} main\n")
    configuration = folder / "apt.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, release=codename))
    apt = ("apt-get", "--config-file", str(configuration), "--quiet=2", "--yes")
    try:
        run(*apt, "update", "--error-on=any")
        run("env", f"--chdir={folder}", *apt, "download", PACKAGE)
    except SystemExit as error:
        raise SystemExit(f"{error}\noneseek: without it, name a Prometheus {MAJOR} in {VARIABLE}") from None
    (archive,) = folder.glob(f"{PACKAGE}_*.deb")
    return archive


if __name__ == "__main__":
    sys.exit(main())
