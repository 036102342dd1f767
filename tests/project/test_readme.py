"""The README tells the truth: its tree, its tables, its settings file and its commands."""

from __future__ import annotations

import ast
import difflib
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from server.__main__ import main
from server.config.settings import OPTIONS, PREFIX, resolve_settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LONGEST = 90
"""Characters of half a line."""
OPEN = ("server", "adapters", "routing", "bench", "deploy")
"""Where a new folder of code is opened; any other stays closed unless the README opens it."""
LINE = re.compile(r"( *)(\S+?)(/?)  +(\S.*)")


def blocks(language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(README) if kind == language]


@dataclass
class Folder:
    """A folder as the tree shows it. One without `children` is closed: what it holds is not told."""

    about: str = ""
    children: dict[str, Folder | str] = field(default_factory=dict["str", "Folder | str"])


def told() -> Folder:
    """The README's tree."""
    root = Folder()
    trail = [root]
    for text in blocks("tree")[0].splitlines():
        match = LINE.fullmatch(text)
        assert match, f"not a line of the tree (NAME, two spaces, half a line about it): {text!r}"
        indent, name, slash, about = match.groups()
        trail = trail[: len(indent) // 2 + 1]
        child = Folder(about) if slash else about
        assert name not in trail[-1].children, f"named twice: {name}"
        trail[-1].children[name] = child
        if isinstance(child, Folder):
            trail.append(child)
    return root


def held() -> dict[str, set[str]]:
    """Folder (empty: the root) → what is or will be tracked in it; a name that ends in / is a folder."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    found: dict[str, set[str]] = {}
    for file in listed.stdout.splitlines():
        if not (ROOT / file).exists():
            continue
        path = Path(file)
        parts = path.parts
        for depth in range(len(parts) - 1):
            found.setdefault("/".join(parts[:depth]), set()).add(parts[depth] + "/")
        if path.name != "__init__.py" and not path.name.startswith("."):
            found.setdefault("/".join(parts[:-1]), set()).add(path.name)
    return {folder: {name for name in names if name != ".ci/"} for folder, names in found.items()}


def is_code(names: Iterable[str]) -> bool:
    return any(name.endswith((".py", ".ps1", ".yaml")) for name in names)


def first_sentence(path: Path) -> str:
    """What a module says of itself, for a line that is missing."""
    init = path / "__init__.py" if path.is_dir() else path
    if init.suffix != ".py" or not init.is_file():
        return "…"
    text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or "…"
    sentence = text.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= LONGEST else re.split(r"[;:,] ", sentence)[0]


def expected(folder: Folder, path: str, real: dict[str, set[str]], depth: int = 0) -> Iterator[str]:
    """The lines that the tree should have: those that are true, and a proposal for each missing one."""
    have = real.get(path, set())
    listed = [name + "/" if isinstance(child, Folder) else name for name, child in folder.children.items()]
    for name in [*(name for name in listed if name in have), *sorted(have - set(listed))]:
        child = folder.children.get(name.rstrip("/"))
        inner = f"{path}/{name}".strip("/")
        about = child.about if isinstance(child, Folder) else child
        about = about or first_sentence(ROOT / inner)
        yield f"{'  ' * depth}{name:<{max(24 - 2 * depth, len(name))}}  {about}"
        if child is None and inner.split("/")[0] in OPEN and is_code(real.get(inner, ())):
            child = Folder(children={"": ""})
        if isinstance(child, Folder) and child.children:
            yield from expected(child, inner, real, depth + 1)


def should_be(readme: str) -> None:
    """Fail with a patch for `git apply` unless README.md is `readme`."""
    is_now, wanted = README.splitlines(keepends=True), readme.splitlines(keepends=True)
    patch = "".join(difflib.unified_diff(is_now, wanted, "a/README.md", "b/README.md"))
    if patch:
        pytest.fail(f"apply this and word it well:\n\n{patch}", pytrace=False)


def test_the_tree_names_every_file_and_nothing_else() -> None:
    block = "\n".join(expected(told(), "", held())) + "\n"
    should_be(README.replace(blocks("tree")[0], block))


def settings_table() -> str:
    rows = ["| setting | variable | default | |", "|---|---|---|---|"]
    for option in OPTIONS:
        default = "" if option.default in (None, (), {}) else f"`{option.render(option.default)}`"
        if option.path == "home":
            default = "`~/.oneseek`"
        rows.append(f"| `{option.name}` | `{option.variable(PREFIX)}` | {default} | {option.explained} |")
    return "\n".join(rows)


def test_the_table_of_settings_is_the_schema() -> None:
    found = re.search(r"\| setting \| variable .*?(?=\n\n)", README, re.DOTALL)
    assert found
    should_be(README.replace(found[0], settings_table()))


@pytest.mark.parametrize("sample", blocks("yaml"))
def test_the_sample_settings_files_are_valid(sample: str, tmp_path: Path) -> None:
    file = tmp_path / "oneseek.yaml"
    file.write_text(sample, encoding="utf-8")
    origins = resolve_settings(environ={}, config=file).origins
    assert sum(origin.startswith("oneseek.yaml:") for origin in origins.values()) > 1


def commands() -> list[str]:
    lines = "".join(blocks("console")).replace("\\\n", "").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def test_commands_are_marked_so_that_they_can_be_run() -> None:
    assert any(command.startswith("curl ") for command in commands())
    for block in blocks("console"):
        assert block.startswith("$ "), f"a console block starts with a command: {block!r}"


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("oneseek ")])
def test_every_verb_that_is_shown_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb = [word for word in command.split()[1:3] if re.fullmatch("[a-z]+", word)]
    assert main([*verb, "--help"]) == 0
    assert f"Usage: oneseek {verb[0]}" in capsys.readouterr().out


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|\$ )make ([a-z]+)", README))))
def test_every_make_target_that_is_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_link_to_a_file_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
