"""Which devices the catalogue's providers bring; the one with a device here is ONNX Runtime's own CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnxruntime as ort
import pytest

from server.engines.embedded.runners.windowsml.catalogue import CatalogueError, open_catalogue
from server.engines.embedded.runners.windowsml.registration import register_present
from tests.server.engines.embedded.runners.windowsml.machine import Machine, recorded_provider, windows

CPU, QNN = "CPUExecutionProvider", "QNNExecutionProvider"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with windows(tmp_path / "machine.json", monkeypatch) as found:
        yield found


def test_a_device_of_each_kind_is_named(machine: Machine) -> None:
    machine.offer(recorded_provider(CPU))
    (found,) = register_present(open_catalogue())
    assert (found.name, found.ort, found.hardware, found.memory) == ("windowsml", CPU, "cpu", "cpu")
    assert found.variant == "portable"


def test_a_library_that_does_not_load_leaves_the_others(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    broken = machine.file.with_name("broken.dll")
    broken.write_bytes(b"no library")
    machine.offer(recorded_provider(QNN, library=str(broken)), recorded_provider(CPU))
    assert [found.ort for found in register_present(open_catalogue())] == [CPU]
    assert QNN in caplog.text
    assert QNN not in {device.ep_name for device in ort.get_ep_devices()}


def test_a_provider_without_a_device_is_refused_with_its_name(machine: Machine) -> None:
    broken = machine.file.with_name("broken.dll")
    broken.write_bytes(b"no library")
    machine.offer(recorded_provider(QNN, library=str(broken)))
    with pytest.raises(CatalogueError, match=QNN):
        register_present(open_catalogue())


def test_nothing_present_is_refused_with_the_verb_that_installs(machine: Machine) -> None:
    machine.offer(recorded_provider(QNN, "NotPresent"))
    with pytest.raises(CatalogueError, match="oneseek devices install"):
        register_present(open_catalogue())
    assert machine.downloads == []
