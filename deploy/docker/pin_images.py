"""Write the digests of images behind their tags, so that a build takes what was looked at.

    python3 deploy/docker/pin_images.py deploy/docker/Dockerfile deploy/compose/compose.yaml

Asks each image's registry through `docker buildx imagetools inspect`. The tag stays, for people; the digest
decides. Images of this project, which have no registry in their names, are left alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

IMAGE = re.compile(r"(?P<tag>docker\.io/[a-z0-9./_-]+:[A-Za-z0-9._-]+)(@sha256:[0-9a-f]{64})?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def main(paths: list[str]) -> int:
    """Rewrite the files; print what changed. The exit code is 1 if a digest cannot be had."""
    known: dict[str, str] = {}
    for path in map(Path, paths):
        text = path.read_text(encoding="utf-8")
        for tag in sorted({found["tag"] for found in IMAGE.finditer(text)}):
            if tag not in known:
                digest = resolve(tag)
                if digest is None:
                    return 1
                known[tag] = digest
        pinned = IMAGE.sub(lambda found: f"{found['tag']}@{known[found['tag']]}", text)
        if pinned != text:
            path.write_text(pinned, encoding="utf-8")
            print(f"{path}: pinned")
    return 0


def resolve(tag: str) -> str | None:
    """The digest that `tag` stands for now, of all its architectures together; None with a line to stderr."""
    command = ["docker", "buildx", "imagetools", "inspect", tag, "--format", "{{.Manifest.Digest}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    digest = done.stdout.strip()
    if done.returncode or not DIGEST.fullmatch(digest):
        print(f"{tag}: no digest: {done.stderr.strip() or digest!r}", file=sys.stderr)
        return None
    return digest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
