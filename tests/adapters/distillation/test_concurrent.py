"""Requests in flight over real HTTP: servers that are busy, slow, broken, or gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from adapters.distillation import concurrent
from adapters.distillation.teacher import RemoteTeacher, TeacherAnswer, TeacherQuestion, TeacherRefusal
from adapters.evaluation.endpoint import EndpointAnswer, EndpointError, ModelEndpoint
from tests.adapters.distillation.far_end import Behave, FarEnd, Reply, far_end


def questions(many: int) -> list[TeacherQuestion]:
    return [
        TeacherQuestion(key=str(n), text=f"Fråga {n}?", longest=8, temperature=0.5, top_p=1.0, seed=n)
        for n in range(many)
    ]


def teacher(met: FarEnd, concurrency: int = 4, retries: int = 3, timeout: float = 5.0) -> RemoteTeacher:
    return RemoteTeacher(
        ModelEndpoint.at(f"{met.url}/v1", "secret", timeout), "teacher", concurrency, retries
    )


def asked(behave: Behave, many: int, **how: float) -> tuple[dict[str, TeacherAnswer], FarEnd]:
    with far_end(behave) as met:
        given = {name: int(value) if name != "timeout" else value for name, value in how.items()}
        answers = teacher(met, **given).answers(questions(many), threading.Event())  # pyright: ignore[reportArgumentType] which of them is whole depends on its name
        return {question.key: answer for question, answer in answers}, met


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrent, "FIRST_WAIT", 0.01)


def test_as_many_as_asked_are_in_flight_and_each_is_asked_once() -> None:
    found, met = asked(lambda _n, question: Reply(f"Svar på {question}", delay=0.05), 24)
    assert met.most_at_once == 4
    assert sorted(met.asked) == sorted(question.text for question in questions(24))
    assert found["7"] == EndpointAnswer("Svar på Fråga 7?", True, "teacher", "fp_1")
    assert met.keys == {"Bearer secret"}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=429),
        Reply(status=503),
        Reply(status=500),
        Reply(body=b"<html>gateway</html>"),
        Reply(body=b""),
    ],
)
def test_what_passes_is_asked_again(reply: Reply) -> None:
    found, met = asked(lambda number, _question: reply if number < 3 else Reply("Ja."), 5)
    assert len(found) == 5
    assert len(met.asked) == 8


def in_a_while(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(as_date: bool) -> None:
    def behave(number: int, _question: str) -> Reply:
        if number:
            return Reply("Ja.")
        return Reply(status=429, retry_after=in_a_while(2.0) if as_date else "1")

    found, met = asked(behave, 1)
    assert len(found) == 1
    first, second = met.times
    assert 0.9 <= second - first < 5


def test_a_retry_after_of_an_hour_ends_the_run_at_once() -> None:
    before = time.monotonic()
    with pytest.raises(EndpointError) as caught:
        asked(lambda _n, _q: Reply(status=503, retry_after="3600"), 1)
    assert caught.value.status == 503
    assert time.monotonic() - before < 30


def test_a_timeout_is_asked_again() -> None:
    found, met = asked(lambda number, _q: Reply("Ja.", delay=0.0 if number else 0.6), 1, timeout=0.2)
    assert len(found) == 1
    assert len(met.asked) == 2


def test_a_server_that_stays_busy_is_one_error_and_the_others_answers_come_first() -> None:
    def behave(_number: int, question: str) -> Reply:
        return Reply(status=429, body=b"no room") if question == "Fråga 0?" else Reply("Ja.", delay=0.1)

    with far_end(behave) as met:
        found: list[str] = []
        with pytest.raises(EndpointError, match=r"\b429: no room .*\b4\b"):
            found.extend(one.key for one, _ in teacher(met).answers(questions(40), threading.Event()))
        assert met.asked.count("Fråga 0?") == 4
        assert 3 <= len(found) < 40
        assert sorted(met.answered) == sorted(f"Fråga {key}?" for key in found)


def test_a_wrong_key_ends_the_run_at_the_first_answer() -> None:
    with far_end(lambda _n, _q: Reply(status=401, body=b"no such key")) as met:
        with pytest.raises(EndpointError, match="401: no such key"):
            list(teacher(met, concurrency=1).answers(questions(9), threading.Event()))
        assert len(met.asked) == 1


def test_what_a_server_does_not_take_is_told_and_the_others_go_on() -> None:
    found, met = asked(
        lambda number, _q: Reply(status=400, body=b"filtered") if number == 2 else Reply("Ja."), 6
    )
    refused = [answer for answer in found.values() if isinstance(answer, TeacherRefusal)]
    assert len(refused) == 1
    assert "400: filtered" in refused[0].reason
    assert len(met.asked) == 6


def test_after_stop_nothing_is_sent_and_what_is_in_flight_comes() -> None:
    stop = threading.Event()

    def behave(number: int, _question: str) -> Reply:
        if number == 5:
            stop.set()
        return Reply("Ja.", delay=0.1)

    with far_end(behave) as met:
        found: Sequence[str] = [one.key for one, _ in teacher(met).answers(questions(40), stop)]
        assert len(found) == len(met.asked) == len(met.answered) <= 9


def test_a_wait_for_a_busy_server_ends_with_stop() -> None:
    stop = threading.Event()

    def behave(_number: int, _question: str) -> Reply:
        stop.set()
        return Reply(status=429, retry_after="300")

    before = time.monotonic()
    with far_end(behave) as met:
        assert list(teacher(met).answers(questions(3), stop)) == []
    assert time.monotonic() - before < 30


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="password") as error:
        ModelEndpoint.at("http://me:hunter2@host:8000/v1")
    assert "hunter2" not in str(error.value)
