"""What looks like ASCII is: no pattern ends in a bare `$`, and no digit is taken for one that is not 0 to 9.

`$` also matches before a line feed at the end, so `abc\\n` would pass; `"²".isdigit()` is true. And no layer
is a `BaseHTTPMiddleware`, which hides from what it wraps that a client has left.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("server", "adapters", "routing", "bench", "deploy")
CALLS = {"compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}
WIDE = {"isdigit", "isdecimal", "isnumeric", "isalnum"}


def bare_ends(tree: ast.AST) -> list[int]:
    """The lines of patterns that end in `$`, but for those that go line by line on purpose."""
    return [
        call.lineno
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and "MULTILINE" not in ast.unparse(call)
        for pattern in patterns(call)
        if ends_bare(pattern)
    ]


def patterns(call: ast.Call) -> list[ast.expr]:
    """What a call takes as a pattern: `re.compile(...)` and its like, and `pattern=` of any call."""
    own = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "re"
    first = call.args[:1] if own and call.func.attr in CALLS else []  # pyright: ignore[reportAttributeAccessIssue]
    return [*first, *(word.value for word in call.keywords if word.arg == "pattern")]


def ends_bare(pattern: ast.expr) -> bool:
    if isinstance(pattern, ast.JoinedStr):
        pattern = pattern.values[-1]
    if isinstance(pattern, ast.BinOp):
        return ends_bare(pattern.right)
    if not isinstance(pattern, ast.Constant) or not isinstance(pattern.value, str):
        return False
    text = pattern.value
    before = text.removesuffix("$")
    return text != before and (len(before) - len(before.rstrip("\\"))) % 2 == 0


def wide_digits(tree: ast.AST) -> list[int]:
    """The lines of `isdigit` and its like that do not stand in one `and` with `isascii` of the same text."""
    narrow = {
        id(value)
        for both in ast.walk(tree)
        if isinstance(both, ast.BoolOp) and isinstance(both.op, ast.And)
        for value in both.values
        if (asked := question(value)) and (asked[0], "isascii") in map(question, both.values)
    }
    return [
        call.lineno
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and (asked := question(call))
        and asked[1] in WIDE
        and id(call) not in narrow
    ]


def hidden_disconnects(tree: ast.AST) -> list[int]:
    """The lines that name Starlette's `BaseHTTPMiddleware`, or import its module."""
    named = {"BaseHTTPMiddleware", "starlette.middleware.base"}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and named & {getattr(node, "module", None), *(alias.name for alias in node.names)}
    ]


def question(node: ast.AST) -> tuple[str, str] | None:
    """A call such as `text.isdigit()` as (`text`, `isdigit`)."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return ast.unparse(node.func.value), node.func.attr
    return None


@pytest.mark.parametrize("rule", [bare_ends, wide_digits, hidden_disconnects])
def test_the_tree_keeps_the_rule(rule: Callable[[ast.AST], list[int]]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in rule(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('re.compile(r"[a-z]+$")', True),
        ('re.match("a$", text)', True),
        ('re.compile(rf"({inner})$")', True),
        ('re.compile("a" + "b$")', True),
        ('Meta(pattern=r"^a$")', True),
        (r're.compile(r"a\\$")', True),
        (r're.compile(r"a\$")', False),
        (r're.compile(r"a\Z")', False),
        ('re.compile("^a$", re.MULTILINE)', False),
        ('text.split("$")', False),
    ],
)
def test_a_bare_end_is_recognised(code: str, expected: bool) -> None:
    assert bool(bare_ends(ast.parse(code))) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("text.isdigit()", True),
        ("text.isdecimal() and ok", True),
        ("other.isascii() and text.isdigit()", True),
        ("text.isascii() or text.isdigit()", True),
        ("ok and text.isascii() and text.isdigit()", False),
        ("text.isalpha()", False),
    ],
)
def test_wide_digits_are_recognised(code: str, expected: bool) -> None:
    assert bool(wide_digits(ast.parse(code))) is expected
