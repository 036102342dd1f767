"""Find lines of code, logs and queries outside code fences, which do not show the writer's language.

A line counts as code only if it has a clear sign of code: `let x = 1;` has one, "let me talk to someone" has
not.
"""

from __future__ import annotations

import re

_SIGNS = (
    # Python
    r"\s*(?:async )?def \w+\(",
    r"\s*class \w+(?:\([\w., ]*\))?:\s*$",
    r"\s*(?:from [\w.]+ )?import [\w.*]+(?:, ?[\w.]+)*(?: as \w+)?;?\s*$",
    r"\s*(?:for|while|if|elif|with|except)\b[^?!]*[=<>()\[\]_\"].*:\s*(?:#.*)?$",
    r"\s*for \w+(?:, \w+)? in [\w.]+:\s*$",
    r"\s*while (?:True|False|\d+|not \w+):\s*$",
    r"\s*(?:else|try|finally|except \w+):\s*$",
    r"\s*(?:return|yield|raise|await|assert|del)\b.*[()\[\]{}=_;].*$",
    r"\s*>>> ",
    r"\s*@\w[\w.]*(?:\(.*\))?\s*$",
    r"Traceback \(most recent",
    r"\s*File \"[^\"]*\", line \d+",
    r"\s*\^+\s*$",
    r"(?:\w+\.)*\w*(?:Error|Exception|Warning|Interrupt)\b(?::|\s*$)",
    # JavaScript, Java, C and their like
    r".*[=()\[\]{}\"].*;\s*(?://.*)?$",
    r".*[\w)>] ?\{\s*$",
    r"\s*[}\])]+[;,]?\s*$",
    r"\s*(?:const|let|var|val|auto|int|float|double|char|string|bool|public|private|static)\b.*[=;{(]",
    r"\s*(?:export |async )*function\b.*\(",
    r".*=>",
    r"\s*#\s*(?:include|define|ifdef|ifndef|endif|pragma)\b",
    r"\s*//|\s*/\*|\s*\*/",
    r"\s*at [\w.$<>]+ ?\(",
    r"Segmentation fault|Unhandled exception|thread '[^']*' panicked|note: run with `|ERROR \d+ \(",
    r"[A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d ",
    r"<\?php|\?>|\s*<%",
    r"Exception in thread|Caused by:|\s*\.{3} \d+ more$",
    r"\s*</?\w[^>]*>\s*$",
    r"\s*<\w+(?: [\w-]+=.*)?>.*</\w+>\s*$",
    r"\s*[.#]?[\w-]+\s*\{",
    # Assignments, calls and subscripts
    r"\s*[\w.\[\]\"']+\s*(?:[-+*/|&]?=|:=)\s*[\w\"'(\[{-].*$(?<![.?!])",
    r"\s*[\w.]+\([^)]*\)\s*;?\s*$",
    r"\s*\w+ <- \S",
    # Shells and tools
    r"#!|\s*(?:if|elif|while) \[|\s*(?:fi|done|esac|end)\s*$",
    r"(?:FROM|RUN|COPY|WORKDIR|CMD|ENTRYPOINT|ENV|EXPOSE) (?=.*[/.\[:=])",
    r"\w+: line \d+:",
    r"\s*[$%]\s+\w",
    r"\s*(?:sudo|npm|npx|yarn|pip3?|git|docker|kubectl|cargo|curl|apt|apt-get|brew|ssh|chmod|mkdir) (?=.*(?:"
    r"-\w|install|run|ERR|WARN|err|warn|notice|error|push|pull|commit|clone|checkout|build|exec|apply|get|ps"
    r")\b)[\w\-./@:= !\"']*.*$",
    r"\w+: (?:[Ee]rror|fatal|warning|command not found|[Nn]o such file|cannot|invalid|unknown)\b",
    r"npm (?:ERR|WARN|err|warn|error)",
    r"(?:fatal|error|warning|remote|hint|panic|ERROR|WARN|WARNING|INFO|DEBUG|FATAL|CRITICAL|TRACE)\b\s*[:|\[]",
    r"error(?:\[\w+\]| TS\d+)?:",
    r"[\w./\\-]*[A-Za-z./][\w./\\-]*:\d+(?::\d+)?:",
    r"\[?(?:\d{4}-\d\d-\d\d|\d\d/\w{3}/\d{4})[T :]",
    r"\[(?:INFO|WARN|WARNING|ERROR|DEBUG|FATAL|TRACE|error|warn|info|debug)\b",
    r"\d\d:\d\d:\d\d[.,\s]",
    # Queries
    r"\s*SELECT\b(?:.*(?:[*,_.(]|\bFROM\b)|\s*$)",
    r"\s*(?:INSERT INTO|DELETE FROM|UPDATE \w+ SET|(?:CREATE|ALTER|DROP) (?:TABLE|INDEX|VIEW))\b",
    r"\s*select\b.*(?:\*|,|\w\.\w).*\bfrom \w+",
    r"\s*(?:insert into|delete from|create table|alter table|drop table) \w+",
    # Data
    r"\s*[\"'][\w .-]+[\"']\s*:\s*\S",
    r"\s*[{\[]\s*[\"'{\[]",
    r"\s*- [\w-]+: \S+$",
    r"(?:[\w.-]+[,;\t]){3,}[\w.-]*$",
    r"[+-]{3} |@@ |diff --git ",
)
_SIGN = re.compile("|".join(f"(?:{sign})" for sign in _SIGNS))
_GOES_ON = re.compile(
    r"  |\t|\s*(?:FROM|WHERE|(?:LEFT |RIGHT |INNER |OUTER |CROSS )*JOIN|ORDER BY|GROUP BY|HAVING|LIMIT|"
    r"VALUES|UNION|AND|OR|ON|SET)\b"
)
"""Matches the beginning of a line that continues code in the line above."""
_SUSPECT = re.compile(
    r"[;{}=()<>\[\]$\"@^#|*]|:\s*$|\b[A-Z]{3,}|Error|:\d|\d:|\b(?:npm|import|else|try|error|fatal|"
    r"warning)\b",
    re.MULTILINE,
)
"""Matches characters or words of which every line of code has at least one."""
_SIGNS_OF_CODE = re.compile(r"[{}()\[\]<>=;$#@\\|_/*+&%\"`~^]")
_FEWEST_SIGNS, _LETTERS_PER_SIGN = 4, 8
_LONGEST = 400
"""Maximum number of characters of a line that are examined."""


def _is_dense(line: str) -> bool:
    """Return True if a line has so many punctuation characters that it must be code."""
    signs = len(_SIGNS_OF_CODE.findall(line))
    return signs >= _FEWEST_SIGNS and signs * _LETTERS_PER_SIGN >= len(line.strip())


def without_code(text: str) -> tuple[str, int]:
    """Remove the lines of code from `text`. Returns the other lines and the number of removed lines, in
    linear time.
    """
    if _SUSPECT.search(text) is None:
        return text, 0
    kept: list[str] = []
    dropped, inside = 0, False
    for line in text.split("\n"):
        goes_on = inside and (_GOES_ON.match(line) is not None or line[:1] in "-+")
        line_is_code = goes_on or _SIGN.match(line[:_LONGEST]) is not None or _is_dense(line[:_LONGEST])
        inside = bool(line.strip()) and line_is_code
        if inside:
            dropped += 1
        else:
            kept.append(line)
    return "\n".join(kept), dropped
