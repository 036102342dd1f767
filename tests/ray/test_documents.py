"""What the documents and `deploy/ray` show is what Ray Serve and this server take."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from server.asgi.ray.arguments import Arguments, engine_resources
from server.config.settings import resolve_settings
from tests.ray.cluster import ROOT

PAGE = (ROOT / "docs" / "ray.md").read_text(encoding="utf-8")


def test_the_configuration_is_rays_and_its_arguments_ours() -> None:
    from ray.serve.schema import ServeDeploySchema  # pyright: ignore[reportMissingImports] # not installed here

    text = (ROOT / "deploy" / "ray" / "serve.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    parsed: Any = ServeDeploySchema.model_validate(document)
    (application,) = parsed.applications
    assert Arguments.parse(application.args).max_replicas == 8
    module, _, name = application.import_path.partition(":")
    assert name == "build"
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_the_command_that_runs_it_is_understood() -> None:
    (line,) = re.findall(r"^serve run .*$", PAGE, re.MULTILINE)
    _, _, target, *pairs = shlex.split(line)
    assert target == "server.asgi.ray.app:build"
    given = dict(pair.split("=", 1) for pair in pairs)
    assert Arguments.parse(given) == Arguments(config="oneseek.yaml", min_replicas=2, max_replicas=2)


def test_the_settings_that_are_shown_are_valid(tmp_path: Path) -> None:
    (sample,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "oneseek.yaml").write_text(sample, encoding="utf-8")
    settings = resolve_settings(environ={}, config=tmp_path / "oneseek.yaml").settings
    assert len(engine_resources(settings, Arguments())["placement_group_bundles"]) == 8


def test_every_argument_is_documented() -> None:
    for argument in fields(Arguments):
        assert f"`{argument.name}`" in PAGE
