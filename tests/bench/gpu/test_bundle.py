"""What is carried to a host: packed, cut, checked and unpacked again."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from bench.gpu.bundle import MANIFEST, pack, unpack_wheels
from bench.gpu.trip import main

Out = pytest.CaptureFixture[str]


@pytest.fixture
def pieces(tmp_path: Path) -> Path:
    """A bundle of a wheel that looks like vLLM's, in pieces of 300 bytes."""
    wheels, site = tmp_path / "wheels", tmp_path / "packed"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "vllm-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("vllm/__init__.py", "\n".join(str(number**3) for number in range(200)))
        wheel.writestr("vllm/vllm-rs", "a program")
        wheel.writestr("vllm/_moe_C_stable_libtorch.abi3.so", "kernels")
        wheel.writestr("vllm/third_party/fmha_sm100/kernel.py", "more of them")
        wheel.writestr("vllm/_C.cpython-312-x86_64-linux-gnu.so", "ours")
        wheel.writestr("vllm/_C.cpython-311-x86_64-linux-gnu.so", "of another Python")
        wheel.writestr("vllm-0.dist-info/METADATA", "Name: vllm")
    unpack_wheels(wheels, site, "3.12")
    names = pack(site, tmp_path / "pieces", 300)
    assert len(names) > 2
    assert all((tmp_path / "pieces" / name).stat().st_size <= 300 for name in names)
    return tmp_path / "pieces"


def test_a_bundle_comes_out_as_it_went_in(pieces: Path, tmp_path: Path, capsys: Out) -> None:
    site = tmp_path / "site"
    main(["unpack", str(pieces), str(site)])
    assert json.loads(capsys.readouterr().out)["packages"] == 1
    files = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    kernel = "vllm/_C.cpython-312-x86_64-linux-gnu.so"
    assert files == {"vllm/__init__.py", "vllm/vllm-rs", "vllm-0.dist-info/METADATA", kernel}
    packed = tmp_path / "packed"
    assert (site / "vllm/__init__.py").read_bytes() == (packed / "vllm/__init__.py").read_bytes()
    assert (site / "vllm/vllm-rs").stat().st_mode & 0o111
    main(["unpack", str(pieces), str(site)])


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_piece_that_did_not_arrive_whole_is_named(pieces: Path, tmp_path: Path, harm: str) -> None:
    piece = pieces / list(json.loads((pieces / MANIFEST).read_text()))[1]
    if harm == "missing":
        piece.unlink()
    else:
        piece.write_bytes(piece.read_bytes()[:-1] + b"!")
    with pytest.raises(SystemExit, match=piece.name):
        main(["unpack", str(pieces), str(tmp_path / "site")])
    assert not (tmp_path / "site").exists()


def test_fewer_pieces_leave_none_of_the_old(pieces: Path, tmp_path: Path) -> None:
    assert pack(tmp_path / "packed", pieces, 1 << 20) == ["piece.00"]
    assert {path.name for path in pieces.iterdir()} == {"piece.00", MANIFEST}
