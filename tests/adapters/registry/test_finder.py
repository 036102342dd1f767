"""Places are looked at in the order of existing installations, and nothing outside them is."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.bases import BASES, MINI_BASE, FoundBase, find_base
from adapters.errors import AdapterError, BaseModelError
from adapters.lora.digest import base_digest
from adapters.registry.discovery.finder import FoundAdapters, find_adapters

Make = Callable[..., Path]

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")


@pytest.fixture
def shipped(tmp_path: Path, make_base: Make, make_adapter: Make) -> Path:
    """What comes with OneSeek: a mini base and two adapters."""
    make_base(tmp_path / "shipped" / "base")
    for alias, language in (("zero-en", "en"), ("zero-sv", "sv")):
        make_adapter(f"shipped/{alias}", manifest={"alias": alias, "version": "v1", "language": language})
    return tmp_path / "shipped"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def found(
    root: Path, shipped: Path, *explicit: str, base: FoundBase | None = None, home: str = "home"
) -> FoundAdapters:
    return find_adapters(
        root, root / home, base or find_base(root, shipped=shipped), explicit, shipped=shipped
    )


def test_the_order_of_bases(root: Path, shipped: Path, make_base: Make) -> None:
    for place, name in reversed(BASES):
        folder = make_base(root / place)
        base = find_base(root, shipped=shipped)
        assert (base.path, base.name, base.shipped) == (folder, name, False)
        assert place in base.reason


def test_the_mini_base_is_last(root: Path, shipped: Path) -> None:
    base = find_base(root, shipped=shipped)
    assert (base.path, base.name, base.shipped) == (shipped / "base", MINI_BASE, True)
    assert base.reason


def test_a_config_without_weights_is_passed_over_and_said(root: Path, shipped: Path, make_base: Make) -> None:
    make_base(root / BASES[0][0], weights=False)
    make_base(root / BASES[3][0])
    base = find_base(root, shipped=shipped)
    assert base.name == "mistral-7b-instruct"
    assert BASES[0][0] in base.reason


def test_a_pickled_base_is_never_passed_over(root: Path, shipped: Path, make_base: Make) -> None:
    folder = make_base(root / BASES[3][0], weights=False)
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"")
    make_base(root / BASES[4][0])
    with pytest.raises(BaseModelError, match="save_pretrained") as caught:
        find_base(root, shipped=shipped)
    assert "pickle" in caught.value.reason


def test_an_explicit_base_goes_first(root: Path, shipped: Path, make_base: Make) -> None:
    make_base(root / BASES[0][0])
    base = find_base(root, make_base(root / "elsewhere" / "Mistral-7B-v0.3"), shipped=shipped)
    assert (base.name, base.path) == ("mistral-7b-v0.3", root / "elsewhere" / "Mistral-7B-v0.3")
    named = find_base(root, shipped / "base", shipped=shipped)
    assert (named.name, named.shipped) == (MINI_BASE, True)


def test_an_explicit_base_is_checked(root: Path, make_base: Make) -> None:
    def said(folder: Path) -> BaseModelError:
        with pytest.raises(BaseModelError) as caught:
            find_base(root, folder)
        return caught.value

    assert said(root / "nowhere").path == root / "nowhere"
    assert said(root).path == root / "config.json"
    assert said(make_base(root / "a", tokenizer=False)).path == root / "a" / "tokenizer.json"
    gpt_sw3 = make_base(root / "gpt-sw3", tokenizer=False)
    (gpt_sw3 / "spiece.model").write_bytes(b"")
    assert find_base(root, gpt_sw3).path == gpt_sw3
    assert ".safetensors" in said(make_base(root / "b", weights=False)).reason
    pickled = make_base(root / "c", weights=False)
    (pickled / "pytorch_model.bin").write_bytes(b"")
    assert "from_pretrained(folder).save_pretrained(folder)" in str(said(pickled))
    (root / "a" / "config.json").write_text("{")
    broken = said(root / "a")
    assert broken.path == root / "a" / "config.json"
    assert isinstance(broken.__cause__, json.JSONDecodeError)


@needs_links
def test_a_base_behind_a_link_must_be_named(
    root: Path, shipped: Path, make_base: Make, tmp_path: Path
) -> None:
    outside = make_base(tmp_path / "outside")
    link = root / BASES[3][0]
    link.parent.mkdir(parents=True)
    link.symlink_to(outside, target_is_directory=True)
    with pytest.raises(BaseModelError, match=f"--base-model {link}") as caught:
        find_base(root, shipped=shipped)
    assert caught.value.path == link
    assert find_base(root, link, shipped=shipped).path == link


def test_adapters_in_order(root: Path, shipped: Path, make_adapter: Make) -> None:
    make_adapter("root/home/registry/zero/v1.1")
    make_adapter("root/home/registry/other/v2", manifest={"alias": "named", "language": "sv"})
    make_adapter("root/home/registry/.writing/v1")
    make_adapter("root/home/registry/zero/.v1.2.tmp")
    make_adapter("root/lora_adapters/oneseek-7b-zero-v1.1-SV")
    extra = make_adapter("elsewhere/extra")
    base = found(root, shipped, str(extra), f"mine={extra}", f"mine@v7={extra}")
    assert [adapter.full_name for adapter in base.adapters] == [
        "extra@v1",
        "mine@v1",
        "mine@v7",
        "named@v2",
        "zero@v1.1",
        "oneseek-7b-zero-sv@v1.1",
        "zero-en@v1",
        "zero-sv@v1",
    ]
    assert base.refused == ()
    assert base.unconverted == ()


def test_the_shipped_adapters_are_for_the_shipped_base(root: Path, shipped: Path, make_base: Make) -> None:
    assert len(found(root, shipped).adapters) == 2
    make_base(root / BASES[3][0])
    assert found(root, shipped).adapters == ()


def test_the_command_for_a_pickle_carries_its_language(root: Path, shipped: Path) -> None:
    weights = root / "weights"
    weights.mkdir(parents=True)
    for name in ("one-v1-SV.pth", "three-v1.pth", "two-v1.pth"):
        (weights / name).write_bytes(b"")
    (weights / "two-v1.json").write_text('{"language": "en"}', encoding="utf-8")
    commands = [pickle.command.rpartition("/")[2] for pickle in found(root, shipped).unconverted]
    assert commands == ["one-v1-SV.pth --language sv", "three-v1.pth", "two-v1.pth --language en"]


def test_pickles_are_reported_with_the_command(root: Path, shipped: Path) -> None:
    for place in ("weights/oneseek-7b-zero-v1.1.pth", "lora_adapters/a b/adapter.pth"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(b"")
    commands = [pickle.command for pickle in found(root, shipped).unconverted]
    assert commands == [
        f"oneseek adapters import {root / 'weights/oneseek-7b-zero-v1.1.pth'}",
        f'oneseek adapters import "{root / "lora_adapters/a b/adapter.pth"}"',
    ]


def test_a_bad_adapter_is_reported_and_the_others_serve(
    root: Path, shipped: Path, make_adapter: Make
) -> None:
    make_adapter("root/lora_adapters/bad", config={"use_dora": True})
    make_adapter("root/lora_adapters/good")
    make_adapter("root/home/registry/zero/latest")
    result = found(root, shipped)
    assert "good@v1" in [adapter.full_name for adapter in result.adapters]
    assert [str(error.path.relative_to(root)) for error in result.refused] == [
        "home/registry/zero/latest",
        "lora_adapters/bad/adapter_config.json",
    ]
    assert "'latest'" in str(result.refused[0])


def test_an_adapter_of_another_base_is_reported(
    root: Path, shipped: Path, make_adapter: Make, make_base: Make
) -> None:
    folder = make_adapter("root/lora_adapters/zero-v1.1-SV")
    larger = make_base(root / BASES[3][0])
    config = larger / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 64}))
    result = found(root, shipped)
    assert result.adapters == ()
    assert re.search(r"\[4, 32\].*\[4, 64\]", str(result.refused[0]))
    config.write_text("{}")
    assert [adapter.path for adapter in found(root, shipped).adapters] == [folder]


def test_a_bad_adapter_that_is_named_is_raised(root: Path, shipped: Path, make_adapter: Make) -> None:
    bad = make_adapter("bad", config={"use_dora": True})
    with pytest.raises(AdapterError, match="use_dora"):
        found(root, shipped, f"mine={bad}")
    with pytest.raises(AdapterError) as caught:
        found(root, shipped, str(root / "nowhere"))
    assert caught.value.path == root / "nowhere"
    for name in ("base", "a/b", "", "a@latest"):
        with pytest.raises(ValueError, match=repr(name.partition("@")[2] or name)):
            found(root, shipped, f"{name}={bad}")


def test_a_path_may_hold_an_equals_sign(root: Path, shipped: Path, make_adapter: Make) -> None:
    folder = make_adapter("run=3/zero-v2")
    assert found(root, shipped, str(folder)).adapters[0].full_name == "zero@v2"
    assert found(root, shipped, f"mine={folder}").adapters[0].full_name == "mine@v2"


@needs_links
@pytest.mark.parametrize(
    "linked", ["folder", "adapter_config.json", "adapter_model.safetensors", "oneseek.json"]
)
def test_no_link_leads_out(
    linked: str, root: Path, shipped: Path, make_adapter: Make, tmp_path: Path
) -> None:
    outside = make_adapter("outside", manifest={"alias": "secret"})
    if linked == "folder":
        (root / "lora_adapters").mkdir()
        (root / "lora_adapters" / "link").symlink_to(outside, target_is_directory=True)
    else:
        inside = make_adapter("root/lora_adapters/link", manifest={})
        (inside / linked).unlink()
        (inside / linked).symlink_to(outside / linked)
    result = found(root, shipped)
    assert [adapter.alias for adapter in result.adapters] == ["zero-en", "zero-sv"]
    assert len(result.refused) == 1
    assert result.refused[0].path.name == ("link" if linked == "folder" else linked)
    assert str(tmp_path) not in result.refused[0].public


def cached(cache: Path, folder: Path, name: str = "models--org--mine-v2-SV", below: str = "") -> Path:
    """`folder` as Hugging Face's cache holds it: blobs, and links to them in a snapshot."""
    repository = cache / name
    snapshot = repository / "snapshots" / "abc" / below
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    up = Path(*[".."] * (2 + len(Path(below).parts)))
    for file in folder.iterdir():
        file.rename(repository / "blobs" / f"0{file.name}")
        (snapshot / file.name).symlink_to(up / "blobs" / f"0{file.name}")
    return snapshot


@needs_links
@pytest.mark.parametrize("below", ["", "checkpoint-9"])
def test_hugging_faces_cache_may_be_named(
    below: str, root: Path, shipped: Path, make_adapter: Make, tmp_path: Path
) -> None:
    snapshot = cached(tmp_path / "hub", make_adapter(), below=below)
    (tmp_path / "link").symlink_to(snapshot, target_is_directory=True)
    for place in (snapshot, tmp_path / "link"):
        assert found(root, shipped, f"mine@v7={place}").adapters[0].full_name == "mine@v7"
        if not below:
            assert found(root, shipped, str(place)).adapters[0].full_name == "mine-sv@v2"
    weights = snapshot / "adapter_model.safetensors"
    weights.resolve().rename(tmp_path / "elsewhere")
    weights.unlink()
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterError) as caught:
        found(root, shipped, f"mine={snapshot}")
    assert caught.value.path == weights


@needs_links
def test_a_base_in_hugging_faces_cache_is_named_as_its_repository(
    root: Path, shipped: Path, make_base: Make, tmp_path: Path
) -> None:
    snapshot = cached(tmp_path / "hub", make_base(tmp_path / "base"), "models--mistralai--Mistral-7B-v0.3")
    assert find_base(root, snapshot, shipped=shipped).name == "mistral-7b-v0.3"
    assert base_digest(snapshot) == base_digest(shipped / "base")


def test_a_folder_that_is_no_base_says_what_to_name(
    root: Path, shipped: Path, make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base(tmp_path / "models--org--name" / "snapshots" / "abc")
    with pytest.raises(BaseModelError, match=f"--base-model {base}"):
        find_base(root, tmp_path / "models--org--name", shipped=shipped)
    adapter = make_adapter("an-adapter")
    with pytest.raises(BaseModelError, match=f"--adapters {adapter}"):
        find_base(root, adapter, shipped=shipped)


def test_what_was_made_for_another_base_is_refused_for_that_first(
    root: Path, shipped: Path, make_adapter: Make
) -> None:
    recorded = {"base_digest": "sha256:" + "1" * 64}
    config = {"target_modules": ["q_proj", "v_proj", "k_proj"]}
    folder = make_adapter("root/lora_adapters/other", manifest=recorded, config=config)
    base = find_base(root, shipped=shipped)
    result = find_adapters(root, root / "home", base, digest="sha256:" + "2" * 64, shipped=shipped)
    assert (result.refused[0].field, result.refused[0].value) == ("base_digest", "sha256:" + "1" * 64)
    with pytest.raises(AdapterError, match="sha256:" + "2" * 64) as caught:
        find_adapters(root, root / "home", base, [str(folder)], digest="sha256:" + "2" * 64, shipped=shipped)
    assert (caught.value.field, caught.value.value) == ("base_digest", "sha256:" + "1" * 64)


def test_an_adapter_in_a_subfolder_is_pointed_at(root: Path, shipped: Path, make_adapter: Make) -> None:
    make_adapter("root/lora_adapters/run/checkpoint-500")
    (error,) = found(root, shipped).refused
    assert "checkpoint-500" in str(error)
    with pytest.raises(AdapterError, match="checkpoint-500"):
        found(root, shipped, str(root / "lora_adapters" / "run"))


@needs_links
def test_a_link_to_a_pickle_elsewhere_is_not_followed(root: Path, shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"")
    (root / "weights").mkdir()
    (root / "weights" / "x.pth").symlink_to(tmp_path / "x.pth")
    assert found(root, shipped).unconverted == ()


@needs_links
def test_links_within_the_place_and_circles_do_no_harm(root: Path, shipped: Path, make_adapter: Make) -> None:
    inside = make_adapter("root/lora_adapters/zero-v1")
    (root / "lora_adapters" / "zero-v2").symlink_to(inside, target_is_directory=True)
    (root / "lora_adapters" / "circle").symlink_to(root / "lora_adapters" / "circle")
    (root / "lora_adapters" / "dangling").symlink_to(root / "nowhere")
    names = [adapter.full_name for adapter in found(root, shipped).adapters]
    assert names[0] == "zero@v1"
    assert found(root, shipped).refused == ()


@needs_links
def test_an_explicit_folder_may_be_a_link(root: Path, shipped: Path, make_adapter: Make) -> None:
    outside = make_adapter("outside/zero-v2")
    (root / "link").symlink_to(outside, target_is_directory=True)
    assert found(root, shipped, str(root / "link")).adapters[0].full_name == "zero@v2"


def test_the_place_of_what_ships() -> None:
    from adapters.registry.discovery import finder

    assert finder.SHIPPED.parts[-3:] == ("adapters", "mini", "weights")
