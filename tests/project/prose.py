"""How the project's prose reads: the rates of a few words, and lines drawn at random to be read by a person.

    python -m tests.project.prose [--sample 50] [--seed 1]

The rates are in a thousand words, of docstrings outside tests and of the documents. A sample holds
docstrings, error messages, log lines and lines of the documents, a quarter of each, without the code around
them.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOGGERS = frozenset({"debug", "info", "warning", "error", "critical", "exception"})


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of prose and where it stands."""

    place: str
    text: str


def tracked(pattern: str) -> list[Path]:
    """Files that git knows by `pattern`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", pattern], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def sources() -> Iterator[tuple[Path, ast.Module]]:
    """Every module outside tests, parsed."""
    for path in tracked("*.py"):
        if path.relative_to(ROOT).parts[0] != "tests":
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def docstrings(path: Path, tree: ast.Module) -> Iterator[Line]:
    """Docstrings of modules, classes and functions, and those that follow a field or a constant.

    The place holds the name of what is documented, since every reader of a docstring has it in view.
    """
    file = path.relative_to(ROOT)
    if text := ast.get_docstring(tree):
        yield Line(f"{file}:1", text)
    yield from _within(tree, file, "")


def _within(node: ast.AST, file: Path, prefix: str) -> Iterator[Line]:
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(child):
                yield Line(f"{prefix}{child.name} in {file}:{child.lineno}", text)
            inner = f"{prefix}{child.name}."
        yield from _within(child, file, inner)
    if isinstance(node, ast.Module | ast.ClassDef):
        for before, after in zip(node.body, node.body[1:], strict=False):
            if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
                value = after.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    target = before.targets[0] if isinstance(before, ast.Assign) else before.target
                    yield Line(f"{prefix}{ast.unparse(target)} in {file}:{after.lineno}", value.value)


def messages(path: Path, tree: ast.Module) -> tuple[list[Line], list[Line]]:
    """The messages of errors that are raised, and of lines that are logged.

    An error with a reason and a remedy is one message, as its reader sees it.
    """
    named = dict(_constants(tree))
    errors, logs = list[Line](), list[Line]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            errors += _whole(path, node.exc, named)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LOGGERS
            and isinstance(node.func.value, ast.Name)
        ):
            logs += _texts(path, node)
    return errors, logs


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and (text := _text(node.value))
        ):
            yield node.targets[0].id, text


def _whole(path: Path, call: ast.Call, named: dict[str, str]) -> Iterator[Line]:
    """The arguments of an error as one line: `{…}: is not a folder. Give …`.

    After a whole message, the name of the field at fault is left out. It is not part of the message:
    clients get it as `param`.
    """
    parts = [named.get(part.id, "{…}") if isinstance(part, ast.Name) else _text(part) for part in call.args]
    parts = [part or "{…}" for part in parts]
    if isinstance(call.func, ast.Name) and call.func.id == "SettingsError" and len(parts) == 3:
        parts[1:] = [f"{parts[1]} ({parts[2]})"]  # where the setting was read
    if len(parts) == 2 and _is_prose(parts[0]) and re.fullmatch(r"[a-z_]+", parts[1]):
        parts.pop()
    if any(_is_prose(part) for part in parts):
        first, *rest = parts
        sentences = ". ".join(part.removesuffix(".") for part in rest)
        yield Line(f"{path.relative_to(ROOT)}:{call.lineno}", f"{first}: {sentences}" if rest else first)


def _texts(path: Path, call: ast.Call) -> Iterator[Line]:
    for argument in call.args:
        if _is_prose(text := _text(argument)):
            yield Line(f"{path.relative_to(ROOT)}:{call.lineno}", text)


def _is_prose(text: str) -> bool:
    return len(text.replace("{…}", "").split()) >= 4


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "{…}" for part in node.values]
        return "".join(str(part) for part in parts)
    return ""


def documents() -> Iterator[Line]:
    """Paragraphs and list items of the documents, each whole, without code and tables."""
    for path in [*tracked("docs/*.md"), ROOT / "README.md"]:
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*|#]|\d{1,2}\.) )", text):
            if len(block.split()) >= 5 and not block.startswith("    "):
                line = " ".join(block.split())
                if not line.startswith(("|", "#", "<")):
                    yield Line(str(path.relative_to(ROOT)), line)


def rates(texts: list[str], *words: str) -> str:
    """`words` in a thousand words of `texts`."""
    found = Counter(re.findall(r"[a-z']+", " ".join(texts).lower()))
    total = sum(found.values())
    return ", ".join(f"{word} {1000 * found[word] / total:.1f}" for word in words) + f" in {total} words"


def main() -> None:
    """Print the rates, and the sample if it is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=0, help="lines to draw (default: none)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    strings, errors, logs = list[Line](), list[Line](), list[Line]()
    for path, tree in sources():
        strings += docstrings(path, tree)
        raised, logged = messages(path, tree)
        errors, logs = errors + raised, logs + logged
    pages = list(documents())
    print("docstrings:", rates([line.text for line in strings], "where", "if"))
    print("documents:", rates([line.text for line in pages], "you", "where", "if"))
    drawing = random.Random(arguments.seed)
    kinds = {"docstring": strings, "error": errors, "log": logs, "document": pages}
    for number in range(arguments.sample):
        kind = list(kinds)[number % len(kinds)]
        line = drawing.choice(kinds[kind])
        print(f"\n{number + 1}. {kind}, {line.place}\n   {' '.join(line.text.split())}")


if __name__ == "__main__":
    main()
