"""A malformed adapter through every door: a reason is given, nothing is left, and good traffic goes on."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from adapters.bases import find_base
from adapters.errors import AdapterError, FileRefusedError
from adapters.ledger import Ledger
from adapters.registry.discovery.finder import find_adapters
from adapters.registry.registry import Base, Registry
from server.__main__ import main
from server.live.catalogue import open_catalogue
from tests.adapters.malformed import Malformed, corpus
from tests.server.administered import Place, add, administered, asking, load, two_versions
from tests.server.http_server import Serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes, sockets and links")

CASES = list(corpus())
SLOWEST = 20.0
"""Seconds that one refusal may take; a pipe that is waited for would take for ever."""
Out = pytest.CaptureFixture[str]


def tree(*folders: Path) -> dict[str, str]:
    """Every file below `folders` with its contents, every folder and link."""
    found: dict[str, str] = {}
    for top in folders:
        for path in sorted(top.rglob("*")):
            if path.is_file() and not path.is_symlink():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = "folder" if path.is_dir() else "other"
    return found


@pytest.fixture(scope="module")
def good(make_adapter: Callable[..., Path]) -> Path:
    return make_adapter("good", 77)


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    return Place.make(tmp_path_factory.mktemp("doors"), tiny_base, make_adapter)


@pytest.fixture(scope="module")
def serving(place: Place) -> Iterator[Serving]:
    with administered(place, place.settings()) as serving:
        two_versions(serving.http, place)
        yield serving


def test_the_corpus_is_large_and_each_case_its_own() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)


def kept(place: Place) -> dict[str, str]:
    return tree(place.home / "registry", place.home / "ledger")


def check_refused(answer: httpx.Response, case: Malformed) -> None:
    assert 400 <= answer.status_code < 500, (case.name, answer.text)
    message = answer.json()["error"]["message"]
    assert len(message) > 20, case.name
    assert "\n" not in message, case.name


def test_over_http(serving: Serving, place: Place, good: Path) -> None:
    client, before = serving.http, kept(place)
    with asking(serving, "zero", clients=1) as answers:
        for number, case in enumerate(CASES):
            folder = case.write(good, place.lora_adapters / "bad" / f"case-{number}")
            began = time.monotonic()
            if "load" in case.doors:
                check_refused(load(client, f"case-{number}", folder), case)
            check_refused(add(client, folder), case)
            assert time.monotonic() - began < SLOWEST, case.name
            assert kept(place) == before, case.name
            shutil.rmtree(folder)
    assert answers.statuses == {200}
    assert len(answers.pairs) == 1
    assert len(serving.served.adapters()) == 2
    assert not [name for name in serving.counts() if 'status="500"' in name]


@pytest.mark.parametrize(
    "path", ["x" * 300, "a/" * 400 + "a", "../" * 20 + "etc", "/proc/self/fd", "\0", "~"]
)
def test_paths_over_http(serving: Serving, place: Place, path: str) -> None:
    before = kept(place)
    for asked in (path, str(place.lora_adapters / path) if "\0" not in path else path):
        for answer in (load(serving.http, "odd", asked), add(serving.http, asked)):
            assert 400 <= answer.status_code < 500, answer.text
    assert kept(place) == before


def test_into_the_registry(place: Place, serving: Serving, good: Path, tmp_path: Path) -> None:
    registry = Registry(place.home, Ledger.open(place.home / "ledger"))
    base = Base.read(find_base(place.root), place.home / "cache")
    before = kept(place)
    for number, case in enumerate(CASES):
        folder = case.write(good, tmp_path / f"case-{number}")
        try:
            registry.add(folder, base=base)
        except (FileRefusedError, ValueError) as error:
            reason = str(error)
        else:
            pytest.fail(f"{case.name} was added")
        assert len(reason) > 20, case.name
        assert kept(place) == before, case.name
        shutil.rmtree(folder)


def test_found_in_a_folder_and_named_in_the_settings(
    place: Place, serving: Serving, good: Path, tmp_path: Path
) -> None:
    """Discovery says why and serves the rest; what the settings name stops the start."""
    root, base = tmp_path / "root", find_base(place.root)
    (root / "lora_adapters").mkdir(parents=True)
    shutil.copytree(good, root / "lora_adapters" / "whole")
    for number, case in enumerate(case for case in CASES if "found" in case.doors):
        folder = case.write(good, root / "lora_adapters" / f"case-{number}")
        found = find_adapters(root, tmp_path / "home", base, digest=serving.served.base_digest)
        served = [one.alias for one in found.adapters]
        if served != ["whole"]:  # what is only seen when all numbers are read is refused by the engine
            assert served == [f"case-{number}", "whole"], case.name
            assert case.name.startswith(("tensors-", "config-lora_alpha-0")), case.name
        elif (folder / "adapter_config.json").is_file() or (folder / "adapter_config.json").is_symlink():
            assert len(found.refused) == 1, case.name
            with pytest.raises(AdapterError):
                find_adapters(root, tmp_path / "home", base, [str(folder)], digest=serving.served.base_digest)
        shutil.rmtree(folder)


COMMANDS = [case for number, case in enumerate(CASES) if number % 16 == 0]


def test_on_the_command_line(
    place: Place, serving: Serving, good: Path, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of them, since each reads the base; `make corpus` runs all."""
    monkeypatch.chdir(place.root)
    before = kept(place)
    for number, case in enumerate(COMMANDS):
        folder = case.write(good, tmp_path / f"case-{number}")
        assert main(["adapters", "add", str(folder), "--home", str(place.home)]) in (1, 2), case.name
        told = capsys.readouterr()
        assert told.out == "", case.name
        assert told.err.startswith("oneseek: "), case.name
        assert told.err.count("\n") == 1, case.name
        assert kept(place) == before, case.name


def test_a_malformed_pickle_leaves_nothing(
    place: Place, serving: Serving, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.root)
    before = kept(place)
    contents = {"empty": b"", "text": b"hello", "zip": b"PK\x03\x04" + b"\0" * 100}
    for name, data in contents.items():
        (tmp_path / f"{name}.pth").write_bytes(data)
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    (tmp_path / "folder.pth").mkdir()
    for name in (*contents, "pipe", "loop", "folder", "missing"):
        code = main(["adapters", "import", str(tmp_path / f"{name}.pth"), "--home", str(place.home)])
        told = capsys.readouterr()
        assert code in (1, 2), name
        assert (told.out, told.err.count("\n")) == ("", 1), name
        assert kept(place) == before, name


def test_a_start_beside_malformed_folders(
    tmp_path: Path, tiny_base: Path, make_adapter: Callable[..., Path], good: Path
) -> None:
    """All of them at once in lora_adapters/: the start takes no longer than it takes to read them."""
    place = Place.make(tmp_path, tiny_base, make_adapter)
    for number, case in enumerate(CASES):
        if "sparse" not in case.name:
            case.write(good, place.lora_adapters / f"case-{number}")
    catalogue = open_catalogue(place.settings(), place.root)
    refused = {one for note in catalogue.notes for one in note.split("/") if one.startswith("case-")}
    assert len(refused) > 150
    assert all(one.problem is None for one in catalogue.served.adapters())
