"""Vulkan in software: Mesa's lavapipe as Debian builds it, unpacked into a folder and never installed.

Debian 12 has Mesa 22, which ONNX Runtime's WebGPU provider refuses, and Mesa 25 in its backports. Apt finds,
verifies and downloads the packages with lists of its own, from the mirror and through the proxies that this
machine is set up for. Elsewhere a driver that is installed is taken: name its manifest in VK_DRIVER_FILES.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path

from tests.environments import print_line, run

PACKAGES = ("mesa-vulkan-drivers", "libvulkan1")
OLDEST = 25
"""Major version of Mesa that the provider accepts."""
LEFT_OUT = frozenset({"libc6", "libgcc-s1", "libstdc++6"})
"""What Python has loaded already, in the machine's own version."""
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
OWN_DRIVER = (
    "install Mesa 25 or later with its Vulkan drivers (lavapipe) and the Vulkan loader, and name the "
    "manifest: VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json make test-device"
)
CONFIGURATION = """\
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Sandbox::User "";
APT::Default-Release "{release}";
APT::Install-Recommends "false";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def unpack(target: Path) -> None:
    """Make `target`: the libraries, the manifest `lvp_icd.json`, and in `packages` what they came in.

    Exits with what to do instead where this machine cannot.
    """
    codename = debian_codename()
    with tempfile.TemporaryDirectory(prefix="oneseek-mesa-") as scratch:
        folder = Path(scratch)
        archives = _download(folder, codename)
        _check(archives)
        for archive in archives:
            if _name(archive) not in LEFT_OUT:
                run("dpkg-deb", "--extract", str(archive), str(folder / "root"))
        _collect(folder / "root", target)
        (target / "packages").write_text("\n".join(archive.stem for archive in archives) + "\n")


def debian_codename() -> str:
    """Of this Debian."""
    machine = f"{sys.platform} on {platform.machine()}"
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SystemExit(f"oneseek: the software device is for Linux on x86_64; this is {machine}")
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    if release.get("ID") != "debian" or not all(map(shutil.which, ("apt-get", "dpkg-deb"))):
        raise SystemExit(f"oneseek: {release.get('PRETTY_NAME', machine)} is not Debian; {OWN_DRIVER}")
    return release["VERSION_CODENAME"]


def _download(folder: Path, codename: str) -> list[Path]:
    """The packages and everything that they depend on."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    suites = (codename, f"{codename}-backports")
    sources = [f"deb {signed}{mirror_of(codename)} {suite} main\n" for suite in suites]
    (folder / "sources.list").write_text("".join(sources))
    configuration = folder / "apt.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, release=suites[1]))
    apt = ("apt-get", "--config-file", str(configuration), "--quiet=2", "--yes")
    try:
        run(*apt, "update", "--error-on=any")
        run(*apt, "install", "--download-only", *PACKAGES)
    except SystemExit as error:
        # The message would name a folder that is about to go.
        told = str(error).replace(str(folder), "…")
        raise SystemExit(f"{told}\noneseek: without these packages: {OWN_DRIVER}") from None
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def mirror_of(codename: str) -> str:
    """Where this machine's apt has Debian itself from."""
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)")
    for line in listed.splitlines():
        uri, _, of = line.partition(" ")
        if of == f"{codename} main":
            return uri.rstrip("/")
    return MIRROR


def _check(archives: list[Path]) -> None:
    (driver,) = (archive for archive in archives if _name(archive) == PACKAGES[0])
    version = driver.name.split("_")[1]
    print_line(f"Mesa {version} from Debian's packages")
    match = re.match(r"\d+", version)
    if match is None or int(match[0]) < OLDEST:
        raise SystemExit(f"oneseek: Mesa {version} is older than {OLDEST}; {OWN_DRIVER}")


def _name(archive: Path) -> str:
    return archive.name.split("_")[0]


def _collect(root: Path, target: Path) -> None:
    """Only the loader and lavapipe, with what they load: the drivers of real GPUs stay out."""
    target.mkdir()
    for folder in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"):
        for library in (root / folder).glob("*.so*"):
            if not library.name.startswith("libvulkan_") or library.name == "libvulkan_lvp.so":
                shutil.copy2(library, target / library.name, follow_symlinks=False)
    (manifest,) = (root / "usr/share/vulkan/icd.d").glob("lvp_icd*.json")
    shutil.copy2(manifest, target / "lvp_icd.json")


def own_driver() -> bool:
    """Whether this machine names a driver itself."""
    return bool(os.environ.get("VK_DRIVER_FILES"))
