"""The journal: whole after a kill at any byte, one run in one folder, one process at a time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.distillation.journal import FILE, JournalError, open_journal
from adapters.evaluation.endpoint import EndpointAnswer
from adapters.training.loop.options import OptionError

ASKED: Mapping[str, Any] = {"teacher": {"model": "m"}, "temperature": 0.7, "judge": None}
SAID = st.builds(
    EndpointAnswer,
    st.text(max_size=30),
    st.booleans(),
    st.text(min_size=1, max_size=5),
    st.one_of(st.none(), st.text(min_size=1, max_size=5)),
)
HOLD = """
import sys
from pathlib import Path
from adapters.distillation.journal import open_journal
with open_journal(Path(sys.argv[1]), {}):
    print("held", flush=True)
    sys.stdin.read()
"""


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(min_size=1, max_size=8), SAID, max_size=6), st.data())
def test_a_file_cut_off_anywhere_holds_the_answers_before_and_grows_on(
    tmp_path_factory: pytest.TempPathFactory, answers: dict[str, EndpointAnswer], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    with open_journal(folder, ASKED) as journal:
        for key, said in answers.items():
            journal.add(key, said)
    whole = (folder / FILE).read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    (folder / FILE).write_bytes(whole[:cut])
    left = max(0, whole[:cut].count(b"\n") - 1)
    with open_journal(folder, ASKED) as journal:
        assert len(journal) == left
        for key, said in list(answers.items())[:left]:
            assert journal.get(key) == said
        for key, said in answers.items():
            if journal.get(key) is None:
                journal.add(key, said)
    assert (folder / FILE).read_bytes() == whole


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 0.8}, r"^temperature: .* 0\.7\b.* 0\.8\b"),
        ({"teacher": {"model": "n"}}, '^teacher: .*{"model": "m"}.*{"model": "n"}'),
        ({"judge": {"model": "j"}}, '^judge: .*null.*{"model": "j"}'),
    ],
)
def test_another_run_in_the_same_folder_is_refused_by_name(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with open_journal(tmp_path, ASKED) as journal:
        journal.add("a", EndpointAnswer("Ja.", True, "m"))
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(OptionError, match=message), open_journal(tmp_path, {**ASKED, **changed}):
        pass
    assert (tmp_path / FILE).read_bytes() == before


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"instruction": "Vem?"}) + "\n", encoding="utf-8")
    with pytest.raises(JournalError, match=FILE), open_journal(tmp_path, ASKED):
        pass
    assert json.loads((tmp_path / FILE).read_text(encoding="utf-8")) == {"instruction": "Vem?"}


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(JournalError, match=re.escape(str(tmp_path))) as caught,
            open_journal(tmp_path, {}),
        ):
            pass
        assert FILE not in str(caught.value)
        other.communicate()
    with open_journal(tmp_path, {}) as journal:
        assert len(journal) == 0
