"""Commands of the documents, run in the order of a reader, over the base that ships.

Paths outside of the working directory are moved into it. `LEFT_OUT` names every command that is not run, with
the reason; test_documents.py parses those.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Generator
from pathlib import Path

import pytest

from adapters.bases import find_base
from adapters.ledger import Ledger
from adapters.registry.registry import Base, Registry
from server.__main__ import main
from tests.project.documents.pages import commands
from tests.server.rolling import scaled

EN, SV = "oneseek-7b-zero", "oneseek-7b-zero-sv"
LEFT_OUT = {
    r"oneseek (serve|bench|eval)\b": "they are measured and served by tests of their own; README's are in "
    "test_readme_answers.py",
    r"oneseek (train|distill)\b": "hours, and torch",
    r"oneseek (adapters import|merge)\b": "torch and PEFT: tests/adapters/pth and tests/adapters/merging",
    r"oneseek adapters add (s3|hf|https)://": "a network: tests/adapters/remote",
    r"oneseek (--version|.*--help)": "test_documents.py",
    r"oneseek completion\b": "a shell reads it: tests/server/cli/test_app.py",
    r"oneseek devices install\b": "Windows: tests/server/cli/serving",
    r"oneseek ledger (sign|check)\b": "the extra sign: tests/server/cli/adapters/test_ledger.py",
}
ORDER = (
    "models",
    "config",
    "devices",
    "doctor",
    "data",
    "adapters add lora_adapters",
    "adapters add my-adapter",
    "adapters list",
    "route",
    "adapters canary",
    "adapters shadow",
    "adapters promote",
    "adapters rollback",
    "ledger list",
    "ledger show",
    "ledger verify",
    "backup",
    "restore",
)
"""Verbs in the order of a reader; within one, as the pages have them."""


def left_out(command: str) -> bool:
    return any(re.match(pattern, command) for pattern in LEFT_OUT)


def shape(command: str) -> str:
    """Verb and flags: commands that differ in their values alone are run once."""
    words = shlex.split(command)
    return " ".join(word for word in words if re.fullmatch(r"--?[a-z-]+|[a-z]+", word))


def steps() -> list[str]:
    """Every command that is run, each once."""
    found = dict[str, str]()
    for _, command in commands():
        if command.startswith("oneseek ") and not left_out(command):
            alone = re.split(r" (?:>|\|\||&&|&|\|) ", command)[0]
            found.setdefault(shape(alone), alone)
    place = {verb: number for number, verb in enumerate(ORDER)}

    def order(command: str) -> int:
        verbs = [verb for verb in ORDER if command.startswith(f"oneseek {verb}")]
        assert verbs, f"{command}: neither run here nor left out with a reason"
        return place[max(verbs, key=len)]

    return sorted(found.values(), key=order)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """A working directory with the adapters and data sets that the pages name, and a home beside it."""
    root = tmp_path_factory.mktemp("documents")
    for number, name in enumerate((f"lora_adapters/{EN}", f"lora_adapters/{SV}", "my-adapter")):
        scaled(root / name, 1.0 - 0.2 * number)
    registry = Registry(root / "home", Ledger.open(root / "home" / "ledger"))
    base = Base.read(find_base(root), root / "home" / "cache")
    for alias, language in ((EN, "en"), (SV, "sv")):
        for version, folder in (("v1.1", f"lora_adapters/{alias}"), ("v1.2", "my-adapter")):
            registry.add(root / folder, base=base, alias=alias, version=version, language=language)
    row = {"language": "sv", "output": "Jag är OneSeek, och jag svarar gärna på svenska."}
    for name, question in (
        ("train", "Vem är du?"),
        ("more", "Vad heter du?"),
        ("held-out", "Är du en människa?"),
    ):
        text = json.dumps(row | {"instruction": question, "output": f"{row['output']} {question}"})
        (root / f"{name}.jsonl").write_text(f"{text}\n", encoding="utf-8")
    (root / "oneseek.yaml").write_text("max_queue: 64\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONESEEK_HOME", str(root / "home"))
        patch.chdir(root)
        yield root


def moved(command: str, place: Path) -> list[str]:
    """The words of `command`, with the paths of other machines inside of `place`."""
    words = shlex.split(command)[1:]
    public = place / "home" / "ledger" / "public.pem"
    paths = {"/etc/oneseek/ledger-public.pem": str(public), "/srv/oneseek": str(place / "restored")}
    if "--base-model" in words:
        at = words.index("--base-model")
        del words[at : at + 2]
    return [paths.get(word, word) for word in words]


@pytest.mark.parametrize("command", steps())
def test_a_command_does_what_its_page_says(
    place: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(moved(command, place))
    said = capsys.readouterr()
    # The doctor's verdict is about this machine.
    assert code in ((0, 1) if command.startswith("oneseek doctor") else (0,)), said.err
    assert said.out.strip()
