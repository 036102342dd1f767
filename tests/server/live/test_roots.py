"""No text makes a server open a folder outside of its roots, whatever links lie in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.live.roots import MAX_PATH, PathMissingError, PathRefusedError, Roots

LINKS = ("out", "up", "within", "chain", "loop", "broken", "across")
PIECES = (*LINKS, "a", "b", "..", ".", "", "~", "C:", "secret", "root")
JOINS = ("/", "//", "\\", "/./", "/../")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """root/a/b is an adapter's folder, other/ is another root, secret/ is neither; links lead everywhere."""
    top = tmp_path_factory.mktemp("tree")
    for folder in ("root/a/b", "other/b", "secret/b"):
        (top / folder).mkdir(parents=True)
        (top / folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    for link, target in {
        "root/out": top / "secret",
        "root/up": Path(".."),
        "root/within": Path("a/b"),
        "root/a/chain": Path("../out/b"),
        "root/loop": Path("loop"),
        "root/broken": top / "secret" / "nothing",
        "root/across": top / "other" / "b",
        "entrance": top / "root",
    }.items():
        (top / link).symlink_to(target)
    for name, target in {"config": "adapter_config.json", "card": "README.md"}.items():
        (top / "root" / name).mkdir()
        (top / "root" / name / target).symlink_to(top / "secret" / "b" / "adapter_config.json")
    return top


@given(
    pieces=st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(JOINS)), max_size=8),
    begins=st.sampled_from(["", "root/", "{top}/", "{top}/root/", "{top}/entrance/", "/", "file:"]),
)
def test_whatever_is_opened_lies_beneath_a_root(
    tree: Path, pieces: list[tuple[str, str]], begins: str
) -> None:
    text = begins.format(top=tree) + "".join(piece + join for piece, join in pieces)
    try:
        folder = Roots([Path("root"), tree / "other"], tree).open(text)
    except PathRefusedError:
        return
    real = os.path.realpath(folder)
    assert os.path.realpath(tree / text) == real
    assert any(f"{real}/".startswith(f"{tree / root}{os.sep}") for root in ("root", "other"))


@given(st.text(max_size=40))
def test_any_text_is_opened_or_refused(tree: Path, text: str) -> None:
    try:
        folder = Roots([tree / "root"]).open(text)
    except PathRefusedError:
        return
    assert folder.is_relative_to(tree / "root")


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("root/a/b", "root/a/b"),
        ("./root//a/./b/", "root/a/b"),
        ("root/within", "root/a/b"),
        ("root/across", "other/b"),
        ("{top}/root/a/b", "root/a/b"),
        ("{top}/entrance/a/b", "root/a/b"),
        ("other/b", "other/b"),
    ],
)
def test_what_is_opened(tree: Path, text: str, opened: str) -> None:
    roots = Roots([tree / "entrance", Path("root"), tree / "other", tree / "missing"], tree)
    assert roots.open(text.format(top=tree)) == tree / opened


@pytest.mark.parametrize(
    "text",
    ["secret/b", "root/out/b", "root/up/secret/b", "root/a/chain", "root/loop", "root/broken", "root/config",
     "root/card", "rootless", "root/../root/a/b", "a/b", "", " ", "root/a\x00", "x" * (MAX_PATH + 1)],
)  # fmt: skip
def test_what_is_refused(tree: Path, text: str) -> None:
    with pytest.raises(PathRefusedError) as refused:
        Roots([Path("root"), Path("other")], tree).open(text)
    assert not isinstance(refused.value, PathMissingError)
    assert str(tree) not in str(refused.value)


def test_what_is_missing_beneath_a_root(tree: Path) -> None:
    with pytest.raises(PathMissingError):
        Roots([Path("root")], tree).open("root/a/nothing")
    with pytest.raises(PathMissingError):
        Roots([Path("missing")], tree).open("missing/a")


def test_nothing_outside_is_looked_at(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[str] = []
    realpath = os.path.realpath

    def recorded(path: str | os.PathLike[str], *, strict: bool = False) -> str:
        followed.append(str(path))
        return realpath(path, strict=strict)

    monkeypatch.setattr(os.path, "realpath", recorded)
    with pytest.raises(PathRefusedError):
        Roots([Path("root")], tree).open("secret/b")
    assert followed == [str(tree / "root")]


def test_a_url_is_no_path(tmp_path: Path) -> None:
    """Also if a folder is called so."""
    for url in ("https:/x/adapter", "file:/x", "s3://bucket/adapter", "hf:x"):
        (tmp_path / url).mkdir(parents=True)
        with pytest.raises(PathRefusedError, match="URL"):
            Roots([tmp_path], tmp_path).open(url)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "oneseek.json"])
def test_a_pipe_is_no_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(PathRefusedError, match=name):
        Roots([tmp_path]).open(str(tmp_path))


def test_a_path_is_short_and_printable(tmp_path: Path) -> None:
    """Also if it leads to a folder beneath a root."""
    (tmp_path / "a\x1b[31m").mkdir()
    for text in ("a\x1b[31m", "./" * (MAX_PATH // 2) + "a", " "):
        with pytest.raises(PathRefusedError, match="printable"):
            Roots([tmp_path], tmp_path).open(text)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """models--org--mine in Hugging Face's cache, beside another repository and a secret; its snapshot."""
    for name in ("mine", "other"):
        repository = tmp_path / "hub" / f"models--org--{name}"
        for folder in ("blobs/deep", "snapshots/abc/checkpoint-9"):
            (repository / folder).mkdir(parents=True)
        for blob in ("blobs/0", "blobs/deep/0"):
            (repository / blob).write_text("{}", encoding="utf-8")
    (tmp_path / "secret").write_text("{}", encoding="utf-8")
    return tmp_path / "hub" / "models--org--mine" / "snapshots" / "abc"


def linked(folder: Path, target: str, name: str = "adapter_config.json") -> Path:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    return folder


def test_one_snapshot_of_hugging_faces_cache_may_be_a_root(cache: Path) -> None:
    linked(cache, "../../blobs/0")
    linked(cache / "checkpoint-9", "../../../blobs/0")
    for root in (cache, cache.parent, cache.parents[1], cache.parents[2]):
        assert Roots([root]).open(str(cache)) == cache
        assert Roots([root]).open(str(cache / "checkpoint-9")) == cache / "checkpoint-9"


@pytest.mark.parametrize(
    "target",
    [
        "../../../models--org--other/blobs/0",
        "../../blobs/deep/0",
        "../../blobs/../../../secret",
        "../../refs",
        "../../../../secret",
        "../../../models--org--other/snapshots/abc/config",
    ],
)
def test_a_snapshot_leads_to_the_blobs_of_its_own_repository_alone(cache: Path, target: str) -> None:
    (cache.parents[1] / "refs").write_text("abc", encoding="utf-8")
    linked(cache.parents[2] / "models--org--other/snapshots/abc", "../../blobs/0", "config")
    with pytest.raises(PathRefusedError, match="adapter_roots"):
        Roots([cache]).open(str(linked(cache, target)))


def test_blobs_that_are_a_link_are_no_blobs(cache: Path, tmp_path: Path) -> None:
    repository = cache.parents[1]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0").write_text("{}", encoding="utf-8")
    (repository / "blobs").rename(repository / "were")
    (repository / "blobs").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    linked(cache, "../../blobs/0")
    with pytest.raises(PathRefusedError, match="adapter_roots"):
        Roots([cache]).open(str(cache))


def test_a_layout_that_a_client_may_have_made_opens_nothing(tmp_path: Path) -> None:
    """A folder that is called as in the cache, below a root that is none."""
    root = tmp_path / "root"
    fake = root / "models--a--b" / "snapshots" / "c"
    fake.mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "0").write_text("{}", encoding="utf-8")
    (root / "models--a--b" / "blobs").symlink_to(tmp_path / "outside", target_is_directory=True)
    linked(fake, "../../blobs/0")
    with pytest.raises(PathRefusedError, match="adapter_roots"):
        Roots([root]).open(str(fake))


def test_the_repository_of_the_path_does_not_count(cache: Path) -> None:
    """Nor does another root: each root's own repository is for what lies beneath it."""
    other = cache.parents[2] / "models--org--other" / "snapshots" / "abc"
    linked(other, "../../../models--org--mine/blobs/0")
    with pytest.raises(PathRefusedError, match="adapter_roots"):
        Roots([cache, other]).open(str(other))
