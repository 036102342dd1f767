"""Pin Docker images: write the digest of each image after its tag, so that every build uses the same image.

    python3 deploy/docker/pin_images.py deploy/docker/Dockerfile deploy/compose/compose.yaml

The digests come from the images' registry, through `docker buildx imagetools inspect`. Docker uses the
digest; the tag remains as information for readers. Images without a registry in their names, which are
OneSeek's own, are not changed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

IMAGE = re.compile(r"(?P<tag>docker\.io/[a-z0-9./_-]+:[A-Za-z0-9._-]+)(@sha256:[0-9a-f]{64})?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def main(paths: list[str]) -> int:
    """Pin the images in the files at `paths`, and print which files changed. Return 1 if the digest of an
    image cannot be found, else 0.
    """
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
    """Return the current digest of the image `tag`, the one for all architectures together. If it cannot be
    found, print the reason to standard error and return None.
    """
    command = ["docker", "buildx", "imagetools", "inspect", tag, "--format", "{{.Manifest.Digest}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    digest = done.stdout.strip()
    if done.returncode or not DIGEST.fullmatch(digest):
        print(f"{tag}: no digest: {done.stderr.strip() or digest!r}", file=sys.stderr)
        return None
    return digest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
