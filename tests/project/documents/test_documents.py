"""Every page is true: its commands and configs are understood, and its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import App

from adapters.training.finetune.config_names import read_training_config
from adapters.training.pretrain.pretrain_options import read_plan
from server.cli.app import build_app
from server.cli.serving.vllm_flags import translate_flags
from server.config.settings import resolve_settings
from tests.project.documents.pages import ROOT, Block, anchors, blocks, commands, links, name_of, pages

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def settings(file: Path) -> None:
    """A settings file: every key is known."""
    origins = resolve_settings(environ={"EXAMPLE_API_KEY": "k"}, config=file).origins
    assert any(origin.startswith(file.name) for origin in origins.values())


def training(file: Path) -> None:
    """A trainer's config."""
    assert read_training_config(file).options


def architecture(file: Path) -> None:
    """The config of a new base."""
    assert read_plan(file, scratch=True).training


def scrape(file: Path) -> None:
    """Prometheus' own file, which has tests of its own."""
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["scrape_configs"]


def manifest(file: Path) -> None:
    """Values and manifests of Kubernetes, which tests/deploy/kubernetes/test_docs.py checks."""
    assert yaml.safe_load(file.read_text(encoding="utf-8"))


READERS: dict[str, Callable[[Path], None]] = {
    "docs/kubernetes.md": manifest,
    "docs/training.md": training,
    "docs/pretraining.md": architecture,
    "docs/metrics.md": scrape,
}
"""How the YAML blocks of a page are read. Default: as settings."""


@cache
def app() -> App:
    """The command line, built once."""
    return build_app()


def of(language: str) -> list[Block]:
    return [block for block in blocks() if block.language == language]


def label(block: Block) -> str:
    return f"{block.page}:{block.number}"


@pytest.mark.parametrize("block", of("yaml"), ids=label)
def test_a_yaml_block_is_what_its_page_says(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "oneseek.yaml"
    file.write_text(block.text, encoding="utf-8")
    READERS.get(block.page, settings)(file)


@pytest.mark.parametrize("block", of("python"), ids=label)
def test_a_python_block_compiles(block: Block) -> None:
    compile(block.text, label(block), "exec")


@pytest.mark.parametrize("block", of("json"), ids=label)
def test_a_json_block_is_json(block: Block) -> None:
    text = block.text.strip()
    for part in text.splitlines() if block.page == "docs/data.md" else [text]:
        value: Any = json.loads(part if part.startswith(("{", "[")) else f"{{{part}}}")
        assert value


@pytest.mark.parametrize(
    ("page", "command"), sorted({(page, one) for page, one in commands() if one.startswith("oneseek ")})
)
def test_a_command_is_understood(page: str, command: str) -> None:
    """Every verb and flag is known, and every value is of its kind."""
    words = shlex.split(command, comments=True)[1:]
    words = words[: next((place for place, word in enumerate(words) if word in ("&", "|", ">")), len(words))]
    if words[0] == "serve":
        words = ["serve", *translate_flags(words[1:])]
    if "--help" in words or "--version" in words:
        return
    found, _, left, _ = app().parse_known_args(words)
    assert callable(found)
    assert not left, f"{page}: {left} is left over"


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(
        re.findall(r"(?:`|^\$ |^)make ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    )
    for target in targets:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        if ":" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        if anchor:
            assert anchor in anchors(file), link


def test_no_link_leads_to_a_page_that_readme_and_the_pages_do_not_name() -> None:
    """Every page can be reached from README."""
    named = {(page.parent / link.partition("#")[0]).resolve() for page in pages() for link in links(page)}
    assert [name_of(page) for page in pages()[1:] if page not in named] == []
