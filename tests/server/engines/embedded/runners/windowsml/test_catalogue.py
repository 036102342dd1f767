"""What Windows ML's catalogue offers, on recorded machines: nothing is downloaded unless it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.engines.embedded.runners.windowsml.catalogue import (
    PINNED,
    CatalogueError,
    install,
    list_offers,
    missing,
    open_catalogue,
    ready_entries,
)
from tests.server.engines.embedded.runners.windowsml.machine import Machine, recorded_provider, windows

OPENVINO, QNN, NVIDIA = "OpenVINOExecutionProvider", "QNNExecutionProvider", "NvTensorRtRtxExecutionProvider"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with windows(tmp_path / "machine.json", monkeypatch) as found:
        yield found


def test_each_provider_is_offered_with_its_state(machine: Machine) -> None:
    machine.offer(
        recorded_provider(QNN, "NotPresent", "Uncertified"),
        recorded_provider(OPENVINO, "NotReady"),
        recorded_provider(NVIDIA, "NotPresent"),
    )
    offers = list_offers(open_catalogue())
    assert [(one.name, one.state, one.certified, one.version) for one in offers] == [
        (NVIDIA, "absent", True, ""),
        (OPENVINO, "installed", True, "1.8.80.0"),
        (QNN, "absent", False, ""),
    ]
    assert [one.name for one in missing(offers)] == [NVIDIA]


def test_making_ready_downloads_nothing(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.offer(
        recorded_provider(OPENVINO),
        recorded_provider(NVIDIA, "NotPresent"),
        recorded_provider(QNN, fault="[WinError -2147009293] Package is being serviced"),
    )
    assert [(entry.name, bool(entry.library_path)) for entry in ready_entries(open_catalogue())] == [
        (OPENVINO, True)
    ]
    assert machine.downloads == []
    assert "Package is being serviced" in caplog.text


def test_a_provider_is_downloaded_by_its_name_in_any_case(machine: Machine) -> None:
    machine.offer(recorded_provider(OPENVINO), recorded_provider(NVIDIA, "NotPresent"))
    offer = install(open_catalogue(), NVIDIA.lower())
    assert (offer.name, offer.version, offer.state) == (NVIDIA, "1.8.80.0", "ready")
    assert machine.downloads == [NVIDIA]


def test_one_that_is_there_is_not_downloaded_again(machine: Machine) -> None:
    machine.offer(recorded_provider(OPENVINO))
    assert install(open_catalogue(), OPENVINO).state == "ready"
    assert machine.downloads == []


def test_what_is_not_offered_is_refused_with_what_is(machine: Machine) -> None:
    machine.offer(recorded_provider(OPENVINO, "NotPresent"))
    with pytest.raises(CatalogueError) as caught:
        install(open_catalogue(), "Cuda")
    assert "'Cuda'" in str(caught.value)
    assert OPENVINO in str(caught.value)
    assert machine.downloads == []


def test_a_download_that_fails_passes_on_what_windows_says(machine: Machine) -> None:
    machine.offer(recorded_provider(OPENVINO, "NotPresent", fault="[WinError -2145124329] 0x80240017"))
    with pytest.raises(CatalogueError, match="0x80240017"):
        install(open_catalogue(), OPENVINO)


def test_an_older_windows_has_no_catalogue(machine: Machine) -> None:
    assert not machine.file.exists()
    with pytest.raises(CatalogueError, match=r"Class not registered.*--device directml"):
        open_catalogue()


@pytest.mark.parametrize(
    ("platform", "remedy"), [("win32", f"pip install windowsml=={PINNED}"), ("linux", "--device webgpu")]
)
def test_without_the_package_the_remedy_is_the_platforms(
    platform: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "windowsml", None)
    open_catalogue.cache_clear()
    with pytest.raises(CatalogueError) as caught:
        open_catalogue(platform)
    assert "windowsml" in str(caught.value)
    assert remedy in str(caught.value)
