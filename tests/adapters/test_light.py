"""What the server imports to know its adapters stays light."""

import subprocess
import sys

import pytest

LIGHT = [
    "registry.pointers",
    "pth.conversion",
    "lora.digest",
    "registry.discovery.finder",
    "ledger",
    "lora.manifest",
    "names",
    "registry.served",
    "registry.listing",
    "files.atomic",
]
LOADED = "import sys, {module}; print(*(m for m in {heavy} if m in sys.modules))"


def loaded(module: str, heavy: list[str]) -> str:
    code = LOADED.format(module=module, heavy=heavy)
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize("module", LIGHT)
def test_finding_and_naming_need_no_tensor_library(module: str) -> None:
    assert (
        loaded(f"adapters.{module}", ["numpy", "onnx", "onnxruntime", "torch", "transformers", "peft"]) == ""
    )


@pytest.mark.parametrize("module", ["lora.weights", "registry.registry", "pth.importer", "lora.compare"])
def test_reading_weights_needs_numpy_alone(module: str) -> None:
    assert loaded(f"adapters.{module}", ["torch", "transformers", "peft", "onnx", "onnxruntime"]) == ""


def test_importing_the_ledger_loads_no_cryptography() -> None:
    heavy = ["cryptography", "filelock", "rfc8785", "model_signing"]
    assert loaded("adapters.ledger.provenance, adapters.ledger.artifact", heavy) == ""
