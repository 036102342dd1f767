"""The image that stands for `python:3.11-slim-bookworm`, made of Debian's packages and kept between runs.

Only the standard library, so that any Python of 3.11 or later can run it.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from tests.environments import print_line, run

BASE = "localhost/oneseek-test-base:1"
"""Its name. Raise the number if it is made otherwise."""
INSIDE = ("ca-certificates", "python3", "python3-venv")


def scratch_of(folder: Path) -> Path:
    """Where builds lie while they run: their layers are too large for a /tmp in memory."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return scratch


def buildah(folder: Path, *arguments: str) -> list[str]:
    """A command of buildah's that needs no daemon, no namespaces, and no storage but `folder`'s."""
    storage = folder / "storage"
    configuration = folder / "registries.conf"
    configuration.write_text('unqualified-search-registries = []\nshort-name-mode = "enforcing"\n')
    places = ("--root", str(storage), "--runroot", str(folder / "run"), "--storage-driver", "vfs")
    policy = folder / "root" / "etc" / "containers" / "policy.json"
    looked_up = ("--registries-conf", str(configuration), "--signature-policy", str(policy))
    # The policy is an option of the commands that move images alone.
    takes_policy = arguments[0] in ("build", "from", "commit")
    return [
        "buildah",
        *places,
        *looked_up[:2],
        arguments[0],
        *(looked_up[2:] if takes_policy else ()),
        *arguments[1:],
    ]


def call(folder: Path, command: list[str]) -> str:
    """What the command wrote to stdout; its end, and an exit, if it failed. Needs root.

    Buildah starts itself again without its environment, so libraries have to be where the system looks: the
    unpacked files are laid over /usr, for this command alone.
    """
    overlay = f"lowerdir={folder / 'root' / 'usr'}:/usr"
    script = 'mount -t overlay -o "$0" overlay /usr && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, overlay, *command],
        env={**os.environ, "TMPDIR": str(scratch_of(folder))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        told = f"{done.stdout[-1500:]}{done.stderr[-3000:]}"
        raise SystemExit(f"{told}\noneseek: failed: {' '.join(command)}")
    return done.stdout.strip()


def make_base(folder: Path, codename: str, mirror: str) -> None:
    """Make the image `BASE` in the storage of `folder`, unless it is there. Needs root."""
    there = json.loads(call(folder, buildah(folder, "images", "--json")) or "[]")
    if any(BASE in (image.get("names") or ()) for image in there):
        return
    print_line("making a base image with Python from Debian's packages (once; 60 MB)")
    with tempfile.TemporaryDirectory(prefix="oneseek-base-", dir=scratch_of(folder)) as made:
        archive = Path(made) / "base.tar"
        call(
            folder,
            [
                "mmdebstrap",
                "--variant=minbase",
                f"--include={','.join(INSIDE)}",
                codename,
                str(archive),
                mirror,
            ],
        )
        container = call(folder, buildah(folder, "from", "scratch"))
        call(folder, buildah(folder, "add", container, str(archive), "/"))
        call(folder, buildah(folder, "commit", "--format", "docker", "--rm", container, BASE))
    run("chmod", "0755", str(folder))
