"""Headless Chromium as Debian builds it, unpacked into a folder and never installed.

    python -m tests.page.chromium       print the path of its program, after fetching it if need be

Apt finds, verifies and downloads the package and all that it needs, with lists of its own. Where this is not
Debian, or Chromium is installed, name the program: CHROMIUM=/usr/bin/chromium.
Only the standard library, so that any Python of 3.11 or later can run it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.device.mesa import CONFIGURATION, KEYRING, debian_codename, mirror_of
from tests.environments import alone, default_cache, print_line, run

PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core", "fonts-liberation")
VARIABLE = "CHROMIUM"
LEFT_OUT = frozenset({"libc6", "libgcc-s1", "libstdc++6", "gcc-12-base", "gcc-14-base"})
"""What the machine's own programs run on already."""
LAUNCHER = """\
#!/bin/sh
# Chromium with the libraries and fonts beside it.
root='{root}'
libraries="$root/usr/lib/x86_64-linux-gnu"
export LD_LIBRARY_PATH="$libraries:$libraries/pulseaudio:$root/lib/x86_64-linux-gnu"
export FONTCONFIG_FILE="$root/fonts.conf"
exec "$root/usr/lib/chromium/chromium-headless-shell" "$@"
"""
FONTS = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>{root}/usr/share/fonts</dir>
  <cachedir>{root}/fonts-cache</cachedir>
  <alias><family>sans-serif</family><prefer><family>Liberation Sans</family></prefer></alias>
  <alias><family>system-ui</family><prefer><family>Liberation Sans</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


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
        folder = cache / f"chromium-{codename}"
        if not folder.exists():
            fetch(folder, codename)
    print(folder / "chromium")


def fetch(folder: Path, codename: str) -> None:
    """Download, unpack into a temporary folder, and give it its name."""
    print_line(f"fetching headless Chromium from Debian's packages into {folder} (once; 130 MB)")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="oneseek-chromium-") as scratch:
        for archive in _download(Path(scratch), codename):
            if archive.name.split("_")[0] not in LEFT_OUT:
                run("dpkg-deb", "--extract", str(archive), str(part))
    (part / "fonts.conf").write_text(FONTS.format(root=folder), encoding="utf-8")
    launcher = part / "chromium"
    launcher.write_text(LAUNCHER.format(root=folder), encoding="utf-8")
    launcher.chmod(0o755)
    part.rename(folder)


def _download(folder: Path, codename: str) -> list[Path]:
    """The packages and everything that they depend on."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    mirror = mirror_of(codename)
    (folder / "sources.list").write_text(f"deb {signed}{mirror} {codename} main\n")
    configuration = folder / "apt.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, release=codename))
    apt = ("apt-get", "--config-file", str(configuration), "--quiet=2", "--yes")
    try:
        run(*apt, "update", "--error-on=any")
        run(*apt, "install", "--download-only", *PACKAGES)
    except SystemExit as error:
        raise SystemExit(f"{error}\noneseek: without it, name a Chromium in {VARIABLE}") from None
    return sorted((folder / "cache" / "archives").glob("*.deb"))


if __name__ == "__main__":
    sys.exit(main())
