"""Find lines of code, logs and queries outside code fences, which do not show the writer's language.

A line counts as code only if it has a clear sign of code: `let x = 1;` has one, "let me talk to someone" has
not.
"""

from __future__ import annotations

import re

from routing.reading.commands import is_command
from routing.reading.data import data_lines

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
    r"(?:Uncaught |Unhandled )?(?:\(in promise\) )?(?:\w+\.)*"
    r"(?:\w*Error|\w+(?:Exception|Warning|Interrupt))\b(?::|\s*$)",
    r"(?:Warning|Exception): .*[\"'`<({]",
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
    r"\s*\\\w+(?:\[.*\])?\{",
    r"\s*[.#]?[\w-]+\s*\{",
    # Assignments, calls and subscripts
    r"\s*[\w.\[\]\"']+\s*(?:[-+*/|&]?=|:=)\s*[\w\"'(\[{-].*$(?<![.?!])",
    r"\s*[\w.]+\([^)]*\)\s*;?\s*$",
    r"\s*\w+ <- \S",
    # Shells and tools
    r"#!|\s*(?:if|elif|while) \[|\s*(?:fi|done|esac|end)\s*$",
    r"(?:FROM|RUN|COPY|WORKDIR|CMD|ENTRYPOINT|ENV|EXPOSE) (?=.*[/.\[:=])",
    r"\w+: line \d+:",
    r"\s*(?:echo|puts|printf?)\s+[\"'].*[\"']\s*;?\s*$",
    r"\s*(?:for \w+ in|(?:while|until|if) (?:read|true|\[|!|:)).*;\s*(?:do|then)\b",
    r"\s*[$%]\s+\w",
    r"(?!https?:)[\w./+-]+: (?:[^\s:]+: ){0,2}(?:[Ee]rror|fatal|warning|command not found|[Nn]o such file|"
    r"[Pp]ermission denied(?:\s*$|[,.] |\s\()|"
    r"cannot (?:access|connect|create|execute|find|load|open|read|remove|stat)|invalid|unknown|"
    r"undefined|[Ii]n function)\b",
    r"permission denied while|Failed to load resource:|Access to \w+ at '",
    r"On branch \S+$|Your branch is |Changes (?:not staged|to be committed)|\s*\(use \"|Untracked files:|"
    r"CONFLICT \(|Automatic merge failed|(?:added|removed|changed|audited) \d+ packages",
    r"npm (?:ERR|WARN|err|warn|error)",
    r"(?:fatal|error|warning|remote|hint|panic|ERROR|WARN|WARNING|INFO|DEBUG|FATAL|CRITICAL|TRACE)\b\s*[:|\[]",
    r"(?:(?:CMake|Build|Runtime|Parse|Compile|Linker|Fatal|fatal|Internal) Error|error)"
    r"(?:\[\w+\]| [A-Z]+\d+)?(?: at \S+.*)?:",
    r"[A-Z]{2,}-\d{3,}:|[\w./\\-]+\(\d+(?:,\d+)?\): |LINE \d+:|goroutine \d+ \[|\s*-->? \S+:\d+",
    r"FAILURE:|BUILD FAIL|FAILED \S+[:/.]\S|\* What went wrong:|Execution failed for ",
    r"[EWIDV]/\w+(?:\(\s*\d+\))?:|(?:time|ts|level|msg)=\S+ \w+=",
    r"[\w./\\-]*[A-Za-z./][\w./\\-]*:\d+(?::\d+)?:",
    r"\[?(?:\d{4}-\d\d-\d\d|\d\d/\w{3}/\d{4})[T :]",
    r"\[(?:INFO|WARN|WARNING|ERROR|DEBUG|FATAL|TRACE|error|warn|info|debug)\b",
    r"\d\d:\d\d:\d\d[.,\s]",
    r"HTTP/\d|(?:GET|POST|PUT|PATCH|DELETE|HEAD) (?:/|https?:)|"
    r"(?:Content|Accept|Cache|User|X|Set|Transfer|Access|Keep)-[A-Z]\w*(?:-\w+)*: \S",
    r"\d{3} (?:Bad Request|Unauthorized|Forbidden|Not Found|Internal Server Error|Bad Gateway|"
    r"Service Unavailable|Gateway Time-?out|Too Many Requests)\s*$",
    # Queries
    r"\s*SELECT\b(?:.*(?:[*,_.(]|\bFROM\b)|\s*$)",
    r"\s*(?:INSERT INTO|DELETE FROM|UPDATE \w+ SET|(?:CREATE|ALTER|DROP) (?:TABLE|INDEX|VIEW))\b",
    r"\s*select\b.*(?:\*|,|\w\.\w).*\bfrom \w+",
    r"\s*(?:insert into \w+ ?(?:\(|values)|delete from \w+(?: where\b|;|$)|create table [\w.]+ ?\(|"
    r"alter table \w+ (?:add|drop|alter|rename)\b|drop table (?:if exists )?[\w.]+;?$|"
    r"update \w+ set \w+ ?=|(?:with|WITH) \w+ (?:as|AS) \(\s*(?:$|select|SELECT))",
    r"\s*select (?:\*|count\(|distinct ).*\bfrom \w+",
    # Data
    r"\s*[\"'][\w .-]+[\"']\s*:\s*\S",
    r"\s*[{\[]\s*[\"'{\[]",
    r"\s*- [\w-]+: \S+$",
    r"(?:[\w.-]+[,;\t]){3,}[\w.-]*$",
    r"\s*\|.*\|\s*$",
    r"[!-~]+(?: [!-~]+){0,2}(?<![.?!,:;])(?: {3,}|\t+)[!-~]+(?: [!-~]+){0,4}(?<![.?!,:;])(?: {3,}|\t+)[!-~]",
    r"[-dl](?:[rwxst-]{9})\b",
    r"[A-Z][a-z]+-[A-Z]\w+ (?:-[A-Z]|\|)",
    r"[+-]{3} |@@ |diff --git ",
)
_SIGN = re.compile("|".join(f"(?:{sign})" for sign in _SIGNS))
_GOES_ON = re.compile(
    r"  |\t|\s*(?:FROM|WHERE|(?:LEFT |RIGHT |INNER |OUTER |CROSS )*JOIN|ORDER BY|GROUP BY|HAVING|LIMIT|"
    r"VALUES|UNION|AND|OR|ON|SET)\b|(?:Host|Connection|Server|Date|ETag|Cookie|Location): \S"
)
"""Matches the beginning of a line that continues code in the line above."""
_SUSPECT_CHARACTERS = frozenset(';{}=()<>[]$"@^#|*\t')
_SUSPECT_COLON = re.compile(
    r":\s*$|:\d|\d:|: (?:command not|cannot [aceflors]|[Uu]ndefined|[Nn]o such|[Ii]n function|[Pp]ermission)",
    re.MULTILINE,
)
_SUSPECT_WORDS = (
    *("npm ", "import ", "rror", "fatal", "warning", "denied while", " packages", "On branch ", "   "),
    *("merge failed", "ailed to load", "ailed for"),
)
_SUSPECT_CAPITALS = re.compile(r"\b(?:[A-Z]{3}|[A-Z]\w+-[A-Z]\w+ -[A-Z])|\d{3} [A-Z]")
_SUSPECT_COLUMNS = re.compile(r"^[^\s,;]+[,;][^\s,;]+[,;]", re.MULTILINE)
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
    lines = text.split("\n")
    if not _is_suspect(text) and not any(map(is_command, lines)):
        return text, 0
    data = data_lines(lines) if len(lines) > 1 else frozenset[int]()
    kept: list[str] = []
    dropped, inside = 0, False
    for number, line in enumerate(lines):
        goes_on = inside and (_GOES_ON.match(line) is not None or line[:1] in "-+#")
        inside = bool(line.strip()) and (goes_on or number in data or _is_code(line[:_LONGEST]))
        if inside:
            dropped += 1
        else:
            kept.append(line)
    return "\n".join(kept), dropped


def _is_suspect(text: str) -> bool:
    """Return True if the text has characters or words of which every line of code except commands has at
    least one.
    """
    return (
        not _SUSPECT_CHARACTERS.isdisjoint(text)
        or any(word in text for word in _SUSPECT_WORDS)
        or (":" in text and _SUSPECT_COLON.search(text) is not None)
        or (not text.islower() and _SUSPECT_CAPITALS.search(text) is not None)
        or ("\n" in text and _SUSPECT_COLUMNS.search(text) is not None)
    )


def _is_code(line: str) -> bool:
    return _SIGN.match(line) is not None or _is_dense(line) or is_command(line)
