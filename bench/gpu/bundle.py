"""vLLM and what it needs, as compressed pieces that can be carried to a GPU host without a network.

    python -m bench.gpu.bundle OUT --wheels wheels.txt      # on a machine with a network; some minutes

Downloads the wheels that the list names, unpacks them into one folder, leaves out the kernels that a dense
model on Hopper never loads, and cuts the compressed whole into pieces. `pieces.json` has the size and hash of
each, so that `python -m bench.gpu.trip unpack` finds a missing or damaged one. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

MANIFEST = "pieces.json"
MIB = 1 << 20
PIECE_MIB = 43
PRESET = 4
"""Level of xz's compression. A higher one takes far longer and saves little."""
GLIBC = range(5, 40)
"""Minor versions of glibc 2 for which wheels are taken."""
UNUSED = (
    "vllm/vllm_flash_attn/_vllm_fa2_C*.so",
    "vllm/_moe_C_stable_libtorch*.so",
    "vllm/_flashmla*",
    "vllm/_qutlass*",
    "vllm/third_party/fmha_sm100",
)
"""FlashAttention 2, mixtures of experts, MLA and Blackwell: patterns below the folder of all packages."""
PROGRAMS = ("vllm/vllm-rs",)
"""Files that a wheel's archive does not mark as executable."""


def main(given: Sequence[str] | None = None) -> None:
    """Run the command line: download packages, pack them into pieces, or unpack the pieces."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.bundle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("out", type=Path, help="folder of the pieces")
    add("--wheels", type=Path, required=True, help="list of packages, one NAME==VERSION a line")
    add("--source", action="append", default=[], help="one more package, of which there is source only")
    add("--python-version", default="3.12", help="Python of the host")
    add("--piece-mib", type=int, default=PIECE_MIB, help="largest size of a piece")
    arguments = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as work:
        wheels, site = Path(work) / "wheels", Path(work) / "site"
        download(arguments.wheels, arguments.source, arguments.python_version, wheels)
        unpack_wheels(wheels, site, arguments.python_version)
        names = pack(site, arguments.out, arguments.piece_mib * MIB)
    sizes = [(arguments.out / name).stat().st_size for name in names]
    print(json.dumps({"bench": "gpu.bundle", "pieces": names, "mib": [round(s / MIB, 1) for s in sizes]}))


def download(listed: Path, sources: Sequence[str], python: str, wheels: Path) -> None:
    """Fetch the wheels of the list for `python` on Linux. Raises `CalledProcessError` if pip fails."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    names = ["manylinux1", "manylinux2014", *(f"manylinux_2_{minor}" for minor in GLIBC), "linux"]
    platforms = [word for name in names for word in ("--platform", f"{name}_x86_64")]
    which = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    command = [*pip, "download", *which, *platforms, "--dest", str(wheels), "--requirement", str(listed)]
    subprocess.run(command, check=True)
    if sources:
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), *sources], check=True)


def unpack_wheels(wheels: Path, site: Path, python: str) -> None:
    """All wheels in one folder, without what is `UNUSED` and extension modules of another Python."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    for pattern in UNUSED:
        for path in site.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    own = f".cpython-{python.replace('.', '')}-"
    for path in site.rglob("*.cpython-*.so"):
        if own not in path.name:
            path.unlink()
    for name in PROGRAMS:
        if (site / name).is_file():
            (site / name).chmod(0o755)


def pack(site: Path, out: Path, piece_bytes: int) -> list[str]:
    """Write `site` as pieces of at most `piece_bytes` and their manifest into `out`; returns their names."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("piece.*"):
        old.unlink()
    writer = PieceWriter(out, piece_bytes)
    sink = cast(BinaryIO, writer)  # only written to
    with (
        lzma.open(sink, "wb", preset=PRESET) as packed,
        tarfile.open(mode="w|", fileobj=cast(BinaryIO, packed)) as archive,
    ):
        archive.add(site, ".")
    writer.close()
    pieces = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in writer.paths}
    (out / MANIFEST).write_text(json.dumps(pieces, indent=1) + "\n", encoding="utf-8")
    return list(pieces)


class PieceWriter:
    """A file that goes on in the next piece when one is full."""

    def __init__(self, out: Path, piece_bytes: int) -> None:
        self._out, self._most = out, piece_bytes
        self._room = 0
        self._file = None
        self.paths: list[Path] = []

    def write(self, data: bytes) -> int:
        """Append `data`, over as many pieces as it takes."""
        view = memoryview(data)
        while view:
            if self._file is None or not self._room:
                self.close()
                self.paths.append(self._out / f"piece.{len(self.paths):02}")
                self._file, self._room = self.paths[-1].open("wb"), self._most
            part, view = view[: self._room], view[self._room :]
            self._file.write(part)
            self._room -= len(part)
        return len(data)

    def close(self) -> None:
        """Close the last piece of the bundle."""
        if self._file is not None:
            self._file.close()
            self._file = None


def checked(folder: Path) -> Iterator[Path]:
    """The pieces of `folder` in order. Raises `ValueError` for one that is missing or damaged."""
    pieces = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, known in pieces.items():
        path = folder / name
        if not path.is_file() or sha256(path) != known["sha256"]:
            raise ValueError(f"{path} is missing or damaged; carry it again")
        yield path


def sha256(path: Path) -> str:
    """Hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
