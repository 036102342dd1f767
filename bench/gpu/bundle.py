"""Pack vLLM and its dependencies into compressed files of limited size, to copy them to a GPU host without a
network.

    python -m bench.gpu.bundle OUT --wheels wheels.txt      # on a machine with a network; some minutes

The command downloads the wheels that wheels.txt lists and unpacks them into one folder. It removes the
kernels that a dense model on a Hopper GPU never loads, and splits the compressed archive into files called
pieces. `pieces.json` has the size and hash of each piece, so that `python -m bench.gpu.trip unpack` finds a
missing or damaged piece. The last line of output is one JSON object.
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
"""Compression level of xz. A higher level takes far longer and saves little space."""
GLIBC = range(5, 40)
"""Minor versions of glibc 2 for which pip may download wheels: 2.5 to 2.39."""
UNUSED = (
    "vllm/vllm_flash_attn/_vllm_fa2_C*.so",
    "vllm/_moe_C_stable_libtorch*.so",
    "vllm/_flashmla*",
    "vllm/_qutlass*",
    "vllm/third_party/fmha_sm100",
)
"""Patterns of files that are removed from the bundle, relative to its site-packages: kernels for
FlashAttention 2, mixtures of experts, MLA and Blackwell GPUs.
"""
PROGRAMS = ("vllm/vllm-rs",)
"""Programs in the wheels that must be made executable after unpacking, because the archives do not mark them
as such.
"""


def main(given: Sequence[str] | None = None) -> None:
    """Run the command line: download the packages, unpack them, and pack them into pieces."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.bundle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("out", type=Path, help="folder to write the pieces (parts of the archive) to")
    add(
        "--wheels",
        type=Path,
        required=True,
        help="file with the packages to bundle, one NAME==VERSION per line",
    )
    add(
        "--source",
        action="append",
        default=[],
        help="one more package, for which only a source distribution exists",
    )
    add("--python-version", default="3.12", help="Python version of the GPU host")
    add("--piece-mib", type=int, default=PIECE_MIB, help="maximum size of a piece in MiB")
    arguments = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as work:
        wheels, site = Path(work) / "wheels", Path(work) / "site"
        download(arguments.wheels, arguments.source, arguments.python_version, wheels)
        unpack_wheels(wheels, site, arguments.python_version)
        names = pack(site, arguments.out, arguments.piece_mib * MIB)
    sizes = [(arguments.out / name).stat().st_size for name in names]
    print(json.dumps({"bench": "gpu.bundle", "pieces": names, "mib": [round(s / MIB, 1) for s in sizes]}))


def download(listed: Path, sources: Sequence[str], python: str, wheels: Path) -> None:
    """Download the wheels that the file `listed` names, for the version `python` on Linux, and build the
    packages in `sources`. Raises `CalledProcessError` if pip fails.
    """
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    names = ["manylinux1", "manylinux2014", *(f"manylinux_2_{minor}" for minor in GLIBC), "linux"]
    platforms = [word for name in names for word in ("--platform", f"{name}_x86_64")]
    which = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    command = [*pip, "download", *which, *platforms, "--dest", str(wheels), "--requirement", str(listed)]
    subprocess.run(command, check=True)
    if sources:
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), *sources], check=True)


def unpack_wheels(wheels: Path, site: Path, python: str) -> None:
    """Unpack all wheels into the folder `site`. Remove the files in `UNUSED`, and extension modules for other
    versions of Python.
    """
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
    """Write the folder `site` as a compressed archive into `out`, in pieces of at most `piece_bytes`, with
    their manifest. Return the names of the pieces.
    """
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
    """A writable file that is split into pieces: when a piece has reached its maximum size, writing continues
    in a new file.
    """

    def __init__(self, out: Path, piece_bytes: int) -> None:
        self._out, self._most = out, piece_bytes
        self._room = 0
        self._file = None
        self.paths: list[Path] = []

    def write(self, data: bytes) -> int:
        """Append `data` to the current piece of the bundle, and start new pieces as needed. Return the number
        of bytes written.
        """
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
        """Close the file of the bundle's last piece."""
        if self._file is not None:
            self._file.close()
            self._file = None


def checked(folder: Path) -> Iterator[Path]:
    """Yield the paths of the bundle's pieces in `folder`, in order. Raises `ValueError` if a piece is missing
    or damaged.
    """
    pieces = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, known in pieces.items():
        path = folder / name
        if not path.is_file() or sha256(path) != known["sha256"]:
            raise ValueError(f"the piece {path} of the bundle is missing or damaged; copy it again")
        yield path


def sha256(path: Path) -> str:
    """Return the SHA-256 hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
