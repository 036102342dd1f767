"""A whole distillation against a server on the loopback: what is asked, kept, and not asked again."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from adapters.datasets.check import Check
from adapters.distillation import concurrent
from adapters.distillation.journal import FILE
from adapters.distillation.options import DistillOptions
from adapters.distillation.output import DistillResult
from adapters.distillation.requester import InterruptedRunError
from adapters.distillation.run import DistillTask, make_dataset
from adapters.distillation.teacher import LocalTeacher, RemoteTeacher, TeacherError
from adapters.evaluation.endpoint import EndpointError, ModelEndpoint
from adapters.evaluation.questions import identity_questions
from adapters.training.loop.options import OptionError
from adapters.training.loop.progress import Reporter
from routing.detect import ProfileDetector
from tests.adapters.distillation.far_end import FarEnd, Reply, far_end

DETECTOR = ProfileDetector()
PLACES = ("Lund", "Umeå", "Visby", "Falun", "Kiruna", "Ystad", "Växjö", "Gävle", "Örebro", "Skövde")
ASKED = ("Var ligger {}?", "Hur stort är {}?", "Berätta något om {}.")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrent, "FIRST_WAIT", 0.01)


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.txt"
    path.write_text("".join(f"{ask.format(p)}\n" for p in PLACES for ask in ASKED), encoding="utf-8")
    return path


def wise(number: int, question: str) -> Reply:
    """Answers questions well, each time in another way, and says prompts in other words."""
    if question.startswith("Skriv om"):
        old = question.rpartition("Text: ")[2]
        return Reply(
            f"Kan du säga mig en sak: {old[0].lower()}{old[1:-1]}?"
            if old.endswith("?")
            else f"Gärna utförligt. {old}"
        )
    if question.startswith("Bedöm"):
        return Reply("2" if "Kiruna" in question else "Bra!" if "Visby" in question else "5")
    place = next(one for one in PLACES if one in question)
    numbers = ("två", "tre", "fyra", "fem", "sex", "sju", "åtta", "nio", "tio", "elva", "tolv")
    first, second = numbers[number % 11], numbers[number // 11 % 11]
    return Reply(
        f"I {place} finns {first} torg, {second} kyrkor och många vänliga människor som gärna hjälper till."
    )


def run(
    met: FarEnd,
    seeds: Path,
    output: Path,
    *,
    judged: bool = False,
    stop: threading.Event | None = None,
    model: str = "teacher",
    seed: int = 1,
    told: StringIO | None = None,
    **options: Any,
) -> DistillResult:
    given: dict[str, Any] = {"examples": 20, "paraphrases": 1, "concurrency": 4, "retries": 2, **options}
    own = DistillOptions(**given)
    teacher = RemoteTeacher(ModelEndpoint.at(met.url), model, own.concurrency, own.retries)
    judge = (
        RemoteTeacher(ModelEndpoint.at(met.url), "judge", own.concurrency, own.retries) if judged else None
    )
    task = DistillTask(
        options=own,
        language="sv",
        seed=seed,
        seeds=(seeds,),
        output=output,
        questions=tuple(identity_questions("sv")),
    )
    reporter = Reporter(told or StringIO())
    return make_dataset(
        task,
        teacher,
        judge,
        lambda text: DETECTOR.detect([text]).language,
        reporter,
        stop or threading.Event(),
    )


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_seeds_become_paraphrases_answers_and_a_clean_data_set(seeds: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "out", StringIO()
    with far_end(wise) as met:
        made = run(met, seeds, out, examples=50, told=told)
        assert made.enough
        assert 1 < met.most_at_once <= 4
    assert made.paraphrases.asked == 30
    assert 20 <= made.paraphrases.kept <= 30
    data = rows(out / "data.jsonl")
    assert len(data) == len(made.examples) >= 50
    assert not list(Check([out / "data.jsonl"], languages=("sv",)).problems())
    origins = {row["id"]: row for row in rows(out / "provenance.jsonl")}
    for row in data:
        origin = origins[row["id"]]
        assert origin["teacher"] == {"url": met.url, "model": "teacher"}
        assert origin["seed"].startswith("seeds.txt:")
        assert origin["sampling"]["temperature"] == 0.7
        assert origin["system_fingerprint"] == "fp_1"
    assert any(row["paraphrase"] == 1 for row in origins.values())
    assert len({row["sampling"]["seed"] for row in origins.values()}) == len(data)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    dropped = sum(one["count"] for one in report["answers"]["dropped"].values())
    assert report["answers"]["asked"] == report["answers"]["kept"] + dropped
    events = [json.loads(line) for line in told.getvalue().splitlines()]
    assert events[-1]["event"] == "kept"
    assert {"seeds", "progress", "paraphrased", "kept"} == {event["event"] for event in events}


def test_what_is_dropped_is_asked_for_again_and_counted_with_examples(seeds: Path, tmp_path: Path) -> None:
    def behave(number: int, question: str) -> Reply:
        if "Umeå" in question:
            return Reply("I'm sorry, but I can't help with that.")
        return Reply("Ja, och", finish="length") if "Falun" in question else wise(number, question)

    with far_end(behave) as met:
        made = run(met, seeds, tmp_path / "out", paraphrases=0)
    assert made.enough
    assert made.answers.dropped["language"] + made.answers.dropped["refusal"] > 0
    assert made.answers.dropped["unfinished"] > 0
    assert made.answers.asked > 20
    assert made.answers.shown["unfinished"][0]["answer"] == "Ja, och"
    assert all(len(shown) <= 3 for shown in made.answers.shown.values())


def test_a_teacher_that_says_the_same_is_asked_up_to_the_bound(seeds: Path, tmp_path: Path) -> None:
    with far_end(lambda _n, _q: Reply("Det är en fin stad i Sverige, tycker jag.")) as met:
        made = run(met, seeds, tmp_path / "out", paraphrases=0, examples=40, attempts=2)
        assert len(met.asked) == made.answers.asked == 80
        assert not made.enough
        assert len(made.examples) + made.answers.dropped["duplicate"] == 80
        assert len(rows(tmp_path / "out" / "data.jsonl")) == len(made.examples)
        greedy = run(met, seeds, tmp_path / "greedy", paraphrases=2, examples=40, temperature=0.0)
        assert greedy.answers.asked == 30 + greedy.paraphrases.kept
        assert greedy.paraphrases.asked == 30


def test_questions_that_adapters_are_measured_by_never_enter_the_data(tmp_path: Path) -> None:
    measured = identity_questions("sv")[0]
    seeds = tmp_path / "own.txt"
    seeds.write_text(f"{measured}\nVar ligger Lund?\nVar ligger Ystad?\n", encoding="utf-8")

    def behave(number: int, question: str) -> Reply:
        return Reply(measured) if question.startswith("Skriv om") else wise(number, question)

    with far_end(behave) as met:
        made = run(met, seeds, tmp_path / "out", examples=4)
        assert made.seeds == 2
        assert made.paraphrases.dropped == {"held out": 2}
        assert measured not in met.asked


def test_the_judge_keeps_the_good_and_its_chatter_is_counted(seeds: Path, tmp_path: Path) -> None:
    with far_end(wise) as met:
        made = run(met, seeds, tmp_path / "out", judged=True, paraphrases=0, examples=30)
        judged = [one for one in met.asked if one.startswith("Bedöm")]
    assert made.answers.dropped["judge"] > 0
    assert made.answers.dropped["unreadable to judge"] > 0
    assert len(judged) == len(set(judged))
    assert not any("Kiruna" in row["output"] for row in rows(tmp_path / "out" / "data.jsonl"))
    assert {row["score"] for row in rows(tmp_path / "out" / "provenance.jsonl")} == {5}


def test_a_finished_run_asks_nothing_and_makes_the_same_files(seeds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with far_end(wise) as met:
        run(met, seeds, out)
        files = {name: (out / name).read_bytes() for name in (FILE, "data.jsonl", "provenance.jsonl")}
        before = len(met.asked)
        again = run(met, seeds, out)
        assert (again.sent, len(met.asked)) == (0, before)
        assert {name: (out / name).read_bytes() for name in files} == files
        # Filters and the number may change: what was answered is sifted anew.
        fewer = run(met, seeds, out, most_characters=70)
        assert len(met.asked) > before
        assert all(len(one.said.text) <= 70 for one in fewer.examples)
        with pytest.raises(OptionError, match=r"^temperature: .* 0\.7\b.* 0\.9\b"):
            run(met, seeds, out, temperature=0.9)
        with pytest.raises(OptionError, match=r"^teacher: "):
            run(met, seeds, out, model="other")


def stable(_number: int, question: str) -> Reply:
    """The same answer to the same question, as a server that honours seeds gives."""
    return Reply("2" if "Bedöm" in question else wise(sum(question.encode()), question).text, delay=0.005)


@pytest.mark.parametrize("trouble", ["dies", "stops"])
def test_a_run_that_broke_off_anywhere_goes_on_without_asking_twice(
    seeds: Path, tmp_path: Path, trouble: str
) -> None:
    with far_end(stable) as met:
        whole = run(met, seeds, tmp_path / "whole", examples=30)
        needed = Counter(met.answered)
    out = tmp_path / "out"
    stop = threading.Event()
    breaks = iter((3, 17, 33, 34, 52))
    state = {"left": next(breaks)}

    def behave(number: int, question: str) -> Reply:
        state["left"] -= 1
        if state["left"] < 0 and trouble == "dies":
            return Reply(status=404, body=b"gone")
        if state["left"] == 0:
            stop.set()
        return stable(number, question)

    with far_end(behave) as met:
        broken = 0
        while True:
            try:
                made = run(met, seeds, out, examples=30, stop=stop if trouble == "stops" else None)
                break
            except (EndpointError, InterruptedRunError):
                broken += 1
                stop.clear()
                state["left"] = next(breaks, 10_000)
        assert broken >= 3
        assert Counter(met.answered) == needed
    assert (out / "data.jsonl").read_bytes() == (tmp_path / "whole" / "data.jsonl").read_bytes()
    assert len(made.examples) == len(whole.examples)


def test_a_server_that_takes_nothing_is_one_error_and_no_answer(seeds: Path, tmp_path: Path) -> None:
    with far_end(lambda _n, _q: Reply(status=400, body=b"max_tokens is unknown")) as met:
        with pytest.raises(EndpointError, match=r" 8 .*max_tokens is unknown"):
            run(met, seeds, tmp_path / "out")
        assert len(met.asked) <= 12
    assert len((tmp_path / "out" / FILE).read_bytes().splitlines()) == 1


def test_one_prompt_that_is_not_taken_is_counted(seeds: Path, tmp_path: Path) -> None:
    def behave(number: int, question: str) -> Reply:
        if question == "Var ligger Lund?":
            return Reply(status=400, body=b"filtered")
        return wise(number, question)

    with far_end(behave) as met:
        made = run(met, seeds, tmp_path / "out", paraphrases=0, examples=30)
    assert made.enough
    assert made.answers.dropped["refused by the server"] == 1
    assert "filtered" in made.answers.shown["refused by the server"][0]["answer"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "seeds.txt",
            "Where is Lund, and who lives in it?\n",
            r"^seeds: .*seeds\.txt: .*'sv'",
        ),
        ("seeds.jsonl", '{"instruction": "Var?"}\n', r"^seeds: .*seeds\.jsonl, line 1: output\b"),
        ("seeds.txt", "", r"^seeds: .*seeds\.txt: .*'sv'"),
    ],
)
def test_seeds_that_cannot_be_asked_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with far_end(wise) as met, pytest.raises(OptionError, match=message):
        run(met, path, tmp_path / "out")
    assert not met.asked


@pytest.mark.slow
def test_a_folder_answers_in_a_process_of_its_own(tiny_base: Path, seeds: Path, tmp_path: Path) -> None:
    """A random model writes nothing good: that it was asked shows in what was dropped."""
    teacher = LocalTeacher(tiny_base, rows=4)
    task = DistillTask(
        options=DistillOptions(examples=6, paraphrases=0, attempts=1, max_tokens=6),
        language="sv",
        seed=1,
        seeds=(seeds,),
        output=tmp_path / "out",
    )
    try:
        made = make_dataset(task, teacher, None, lambda _: None, Reporter(StringIO()), threading.Event())
    finally:
        teacher.close()
    assert made.answers.asked == 6
    assert made.answers.dropped["unfinished"] > 0
    assert made.teacher["digest"].startswith("sha256:")
    assert made.teacher_digest == made.teacher["digest"]
    assert len((tmp_path / "out" / FILE).read_bytes().splitlines()) == 7


@pytest.mark.slow
def test_a_folder_that_is_no_model_is_one_error(tmp_path: Path, seeds: Path) -> None:
    with pytest.raises(OptionError, match=r"^teacher: .*config\.json.*http://HOST"):
        LocalTeacher(tmp_path, rows=4)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    teacher = LocalTeacher(tmp_path / "model", rows=4)
    task = DistillTask(
        options=DistillOptions(), language="sv", seed=1, seeds=(seeds,), output=tmp_path / "out"
    )
    with pytest.raises(TeacherError, match=re.escape(str(tmp_path / "model"))):
        make_dataset(task, teacher, None, lambda _: None, Reporter(StringIO()), threading.Event())
    teacher.close()
