"""Debian's buildah, mmdebstrap, bubblewrap, nginx and Caddy, unpacked into a folder and never installed.

    python -m tests.deploy.tools       print the folder, after fetching what is missing and building the image

Only the standard library, so that any Python of 3.11 or later can run it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.deploy.base import make_base
from tests.deploy.image import prepare
from tests.device.mesa import CONFIGURATION, KEYRING, debian_codename, mirror_of
from tests.environments import alone, default_cache, print_line, run

PACKAGES = ("bubblewrap", "buildah", "caddy", "mmdebstrap", "nginx")
STATUS = Path("/var/lib/dpkg/status")


def main() -> None:
    """Print the folder; everything else goes to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cache", default="", help="folder of what is fetched (default: ~/.cache/oneseek)")
    cache = Path(parser.parse_args().cache or default_cache()).expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    codename = debian_codename()
    folder = cache / f"deploy-{codename}"
    with alone(cache):
        if not (folder / "root").exists():
            fetch(folder, codename)
    if os.geteuid() == 0:
        # A lock of its own: a build takes a minute, and environments of other tests need not wait for it.
        with alone(folder):
            make_base(folder, codename, mirror_of(codename))
            prepare(folder, "cpu")
    print(folder)


def fetch(folder: Path, codename: str) -> None:
    """Download the packages with what they need beyond this machine's own, and unpack them in `folder`."""
    print_line(f"fetching {', '.join(PACKAGES)} from Debian's packages (once; 30 MB)")
    part = folder / "part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="oneseek-deploy-") as scratch:
        for archive in _download(Path(scratch), codename):
            run("dpkg-deb", "--extract", str(archive), str(part))
    part.rename(folder / "root")


def _download(folder: Path, codename: str) -> list[Path]:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    # What is installed is used where it lies; the named packages are fetched even so.
    shutil.copy(STATUS, folder / "status")
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    (folder / "sources.list").write_text(f"deb {signed}{mirror_of(codename)} {codename} main\n")
    configuration = folder / "apt.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, release=codename))
    apt = ("apt-get", "--config-file", str(configuration), "--quiet=2", "--yes")
    run(*apt, "update", "--error-on=any")
    run(*apt, "install", "--download-only", "--reinstall", *PACKAGES)
    return sorted((folder / "cache" / "archives").glob("*.deb"))


if __name__ == "__main__":
    sys.exit(main())
