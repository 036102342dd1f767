"""One flavour of ONNX Runtime in an environment, and the commands that lead there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from server.engines.embedded.runners.device.flavours import (
    PINNED,
    Flavour,
    FlavourError,
    check_flavours,
    check_provider,
    find_installed,
    install,
)
from server.engines.embedded.runners.device.providers import PROVIDERS, DeviceName

ROOT = Path(__file__).resolve().parents[6]
PLAIN = Flavour("onnxruntime", "1.32.0")
WEBGPU = Flavour("onnxruntime-webgpu", "1.27.0")
WINDOWS = Flavour("onnxruntime-windowsml", "1.28.3.202610130701")
CPU = "CPUExecutionProvider"


def put(folder: Path, name: str, version: str, *files: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in files))


def test_the_one_that_tests_run_on_is_found() -> None:
    import onnxruntime

    (flavour,) = find_installed()
    assert flavour.version.startswith(onnxruntime.__version__)
    assert flavour.name.startswith("onnxruntime")


def test_owners_are_found_by_their_files_and_others_are_not(tmp_path: Path) -> None:
    put(tmp_path, "onnxruntime", "1.32.0", "onnxruntime/__init__.py", "onnxruntime/capi/x.so")
    put(tmp_path, "onnxruntime_WebGPU", "1.27.0", "LICENSE", "onnxruntime/__init__.py")
    put(tmp_path, "ort-nightly-openvino", "1.33.0", "onnxruntime/__init__.py")
    put(tmp_path, "onnxruntime-genai", "0.18", "onnxruntime_genai/__init__.py")
    put(tmp_path, "onnxruntime-ep-webgpu", "0.4.0", "onnxruntime_ep_webgpu/__init__.py")
    put(tmp_path, "vendored", "1", "vendored/onnxruntime/__init__.py")
    (tmp_path / "no_record-1.dist-info").mkdir()
    assert find_installed(tmp_path) == (PLAIN, WEBGPU, Flavour("ort-nightly-openvino", "1.33.0"))


@pytest.mark.parametrize("flavour", [PLAIN, WEBGPU, WINDOWS, Flavour("onnxruntime-qnn", "1.24.4")])
@pytest.mark.parametrize("device", [None, "cpu", "webgpu"])
def test_any_single_flavour_passes(flavour: Flavour, device: DeviceName | None) -> None:
    check_flavours(device, (flavour,))


@pytest.mark.parametrize(
    ("device", "platform", "found", "commands"),
    [
        (
            None,
            "linux",
            (PLAIN, WEBGPU),
            "pip uninstall -y onnxruntime onnxruntime-webgpu  and then  "
            "pip install onnxruntime-webgpu==1.27.0",
        ),
        (
            "cpu",
            "linux",
            (PLAIN, WEBGPU),
            "pip uninstall -y onnxruntime onnxruntime-webgpu  and then  pip install onnxruntime",
        ),
        (
            "directml",
            "win32",
            (PLAIN, WINDOWS),
            "pip uninstall -y onnxruntime onnxruntime-windowsml  and then  "
            "pip install onnxruntime-windowsml==1.28.3.202610130701",
        ),
        (
            None,
            "win32",
            (PLAIN, Flavour("onnxruntime-gpu", "1.32.0")),
            "pip uninstall -y onnxruntime onnxruntime-gpu  and then  "
            "pip install onnxruntime-windowsml==1.28.3.202610130701",
        ),
    ],
)
def test_two_are_refused_with_the_commands_that_mend_it(
    device: DeviceName | None, platform: str, found: tuple[Flavour, ...], commands: str
) -> None:
    with pytest.raises(FlavourError) as caught:
        check_flavours(device, found, platform)
    assert str(caught.value).endswith(f"run: {commands}")
    assert f"{found[0]} and {found[1]}" in str(caught.value)


def test_none_at_all_says_what_to_install() -> None:
    with pytest.raises(FlavourError, match=r"pip install onnxruntime$"):
        check_flavours(None, (), "linux")
    with pytest.raises(FlavourError, match=r"pip install onnxruntime-windowsml==1\.28"):
        check_flavours(None, (), "win32")


def test_a_flavour_without_the_device_says_which_has_it() -> None:
    webgpu = PROVIDERS["webgpu"]
    check_provider(webgpu, [webgpu.ort, CPU], (WEBGPU,))
    with pytest.raises(FlavourError) as caught:
        check_provider(webgpu, [CPU], (PLAIN,))
    assert "WebGpuExecutionProvider" in str(caught.value)
    assert re.search(
        r"\bpip uninstall -y onnxruntime .* pip install onnxruntime-webgpu==1\.27\.0$", str(caught.value)
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there it can be had")
def test_directml_is_not_promised_where_it_cannot_be() -> None:
    with pytest.raises(FlavourError, match="--device webgpu or --device cpu"):
        check_provider(PROVIDERS["directml"], [CPU], (PLAIN,))


def test_the_pins_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [install(name).removeprefix("pip install ") for name in PINNED]
    assert extras["webgpu"] == [wanted[0]]
    windows = f"{wanted[1]}; sys_platform == 'win32'"
    assert extras["directml"] == [windows]
    assert windows in project["dependencies"]


def test_every_device_has_a_flavour_that_can_be_named() -> None:
    for provider in PROVIDERS.values():
        assert provider.distribution in {*PINNED, "onnxruntime"}


def test_looking_loads_no_part_of_onnx_runtime() -> None:
    code = (
        "import sys; from server.engines.embedded.runners.device.flavours import find_installed;"
        "print(find_installed());"
        "sys.exit(any(name.split('.')[0] == 'onnxruntime' for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime" in done.stdout
