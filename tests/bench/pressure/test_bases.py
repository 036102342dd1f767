"""The benchmark of two bases: what it asks for, and that it asks each base."""

from __future__ import annotations

from bench.pressure.bases import NAMES, answers


def test_each_request_names_its_base_and_has_a_prompt_of_its_own() -> None:
    jobs = [job for place, name in enumerate(NAMES) for job in answers(name, 3, 7, 32, place)]
    assert [job.body["model"] for job in jobs] == [name for name in NAMES for _ in range(3)]
    assert {(job.tokens, job.body["max_tokens"], len(job.body["prompt"])) for job in jobs} == {(7, 7, 32)}
    assert len({tuple(job.body["prompt"]) for job in jobs}) == 6
