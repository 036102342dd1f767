"""Recognise shell commands, such as `git log --oneline`, by the name of the tool that opens the line.

A sentence may open with such a name too ("git is confusing"), and some names are English words ("make it
shorter"), so the rest of the line must look like arguments.
"""

from __future__ import annotations

import re

from routing.lists import read_list

_TOOLS, _WORDS, _SUBCOMMANDS = (
    frozenset(read_list("reading", "shell", name)) for name in ("tools", "words", "subcommands")
)
_ARGUMENTS = _SUBCOMMANDS | _TOOLS | _WORDS
_OPENINGS = _TOOLS | _WORDS
_PROMPTS = ("$", "%", "#", ">")
"""Last characters of a shell's prompt."""
_PROMPT = re.compile(r"\s*(?:\S*[$%#>]\s+)?(?:sudo\s+)?(?:\./)?")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_SIGN = re.compile(r"--?[A-Za-z]|[&|<>]|\.{0,3}[/~*$]|\.{1,3}\Z|.*(?:[/\\=@]|\w\.\w)")
_MOST_PLAIN, _MOST_TOKENS = 2, 5


def is_command(line: str) -> bool:
    """Return True for a command with options, paths or the like."""
    tokens = _tokens(line)
    if not tokens:
        return False
    signs = sum(_SIGN.match(token) is not None for token in tokens[1:])
    plain = sum(token.isalpha() and token not in _ARGUMENTS for token in tokens[1:])
    return signs > 0 and plain <= (min(signs, _MOST_PLAIN) if tokens[0] in _TOOLS else 0)


def may_be_command(text: str) -> bool:
    """Return True for one command without options, such as "npm run build". A short sentence such as "npm run
    crashes" looks the same.
    """
    tokens = _tokens(text)
    return (
        2 <= len(tokens) <= _MOST_TOKENS
        and "\n" not in text
        and tokens[0] in _TOOLS
        and tokens[1] in _SUBCOMMANDS
    )


def _tokens(line: str) -> tuple[str, ...]:
    """Return the words of a line that begins with a tool. Returns none for other lines, and for lines with
    the signs of a sentence.
    """
    opening = line.lstrip().partition(" ")[0]
    if opening not in _OPENINGS and opening[-1:] not in _PROMPTS and opening[:2] != "./":
        return ()
    start = _PROMPT.match(line)
    command = line[start.end() if start else 0 :]
    if command.partition(" ")[0] not in _OPENINGS or not line.isascii():
        return ()
    tokens = tuple(_QUOTED.sub(" ", command).split())
    return () if any(token[-1] in "?!," for token in tokens) else tokens
