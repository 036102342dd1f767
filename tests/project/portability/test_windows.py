"""What Windows does otherwise with names, paths and open files, as far as another system can show it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest

from adapters import names
from adapters.bases import find_base
from adapters.files import atomic
from adapters.registry.discovery.finder import find_adapters
from server.config.settings import default_home, resolve_settings
from server.engines.embedded.model.cache import BUILDER_VERSION
from server.engines.embedded.runners.device.reference_logits import DeviceCheck

HOME = PureWindowsPath("C:/Users/a.user.with-a-name/AppData/Local/oneseek")
LONGEST = 259
"""Characters of a path without the setting for longer ones: MAX_PATH, less its closing zero."""
DIGEST = "sha256:" + "0" * 64
posix = pytest.mark.skipif(sys.platform == "win32", reason="there, these are real paths")


@posix
@pytest.mark.parametrize("path", ["C:\\x", "c:\\Users\\Åsa Öberg\\my=adapter", "\\\\server\\share\\x", "D:x"])
def test_an_adapter_is_named_with_a_drive_or_a_share(
    path: str,
    tiny_base: Path,
    tiny_adapters: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(path).mkdir()
    for file in tiny_adapters["sv"].iterdir():
        (Path(path) / file.name).write_bytes(file.read_bytes())
    found = find_adapters(tmp_path, tmp_path / "home", find_base(tmp_path, tiny_base), (f"sv={path}",))
    assert [(adapter.alias, str(adapter.path)) for adapter in found.adapters] == [("sv", path)]


@pytest.mark.parametrize("path", ["C:\\models\\mistral", "\\\\server\\models\\mistral", "D:/models/mistral"])
def test_settings_keep_windows_paths_as_they_are(path: str, tmp_path: Path) -> None:
    file = tmp_path / "oneseek.yaml"
    file.write_text(f"base_model: {path}\nadapters:\n  - sv={path}\n", encoding="utf-8")
    surfaces = (
        resolve_settings({"base_model": path, "adapters": [f"sv={path}"]}, {}),
        resolve_settings({}, {"ONESEEK_BASE_MODEL": path, "ONESEEK_ADAPTERS": f"sv={path}"}),
        resolve_settings({}, {}, config=file),
    )
    for found in surfaces:
        assert found.settings.base_model == Path(path)
        assert found.settings.adapters == (f"sv={path}",)


def test_the_home_is_where_windows_keeps_such_things() -> None:
    assert default_home({"LOCALAPPDATA": str(HOME.parent)}, "win32") == Path(str(HOME.parent)) / "oneseek"
    assert default_home({}, "win32") == Path.home() / ".oneseek"


@pytest.mark.parametrize(
    "name", ["con", "NUL", "aux.v1", "com1", "LPT9.x", "sv.", "a:b", "a\\b", "a/b", "a*", "sv ", " sv", "a|b"]
)
def test_no_alias_is_a_folder_that_windows_would_not_make(name: str) -> None:
    with pytest.raises(ValueError, match="alias"):
        names.alias(name)


@pytest.mark.parametrize("name", ["v1.", "v1 ", "v1/2", "v1\\2", "v1:2", "con", "v1..2"])
def test_no_version_is(name: str) -> None:
    with pytest.raises(ValueError, match="version"):
        names.version(name)


def test_paths_that_the_server_makes_fit_windows() -> None:
    """With an alias of 64 characters, and the longest name that writing gives a file for a moment."""
    graph = HOME / "graphs" / DIGEST.replace(":", "-") / f"portable-fp16-int4-{BUILDER_VERSION}"
    check = SimpleNamespace(_graph=SimpleNamespace(folder=graph), _rows=2, _context=17)
    golden = DeviceCheck._file(check, DIGEST)  # pyright: ignore[reportPrivateUsage, reportArgumentType]
    version = HOME / "registry" / ("a" * 64) / ".v1.10-SV.00112233aabb.tmp"
    building = graph.with_name(f".{graph.name}.00112233aabb.tmp") / "model.onnx.data"
    for path in (golden, version / "adapter_model.safetensors", building):
        assert len(str(path)) <= LONGEST, path


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "sys", SimpleNamespace(platform="win32"))


def refused(times: int) -> Callable[..., Path]:
    """`Path.replace` or `.rename` as Windows has them while somebody has the target open."""
    left = times
    move = Path.rename

    def attempt(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left >= 0:
            raise PermissionError(13, "The process cannot access the file", str(target))
        return move(self, target)

    return attempt


@pytest.mark.usefixtures("windows")
def test_a_file_that_is_being_read_is_replaced_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", refused(3))
    with atomic.staged_file(tmp_path / "active.json") as path:
        path.write_text("{}", encoding="utf-8", newline="\n")
    assert (tmp_path / "active.json").read_text("utf-8") == "{}"


@pytest.mark.usefixtures("windows")
def test_what_stays_open_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_PAUSES", (0.001,) * 3)
    monkeypatch.setattr(Path, "rename", refused(100))
    with pytest.raises(PermissionError), atomic.staged_folder(tmp_path / "v1.0") as folder:
        (folder / "file").write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_elsewhere_a_refusal_is_final_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "sys", SimpleNamespace(platform="linux"))
    monkeypatch.setattr(Path, "replace", refused(1))
    with pytest.raises(PermissionError), atomic.staged_file(tmp_path / "file") as path:
        path.write_bytes(b"x")
