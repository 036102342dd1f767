"""From a scenario to requests."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from bench.load.drive import by_user
from bench.scenarios.catalogue import SCENARIOS, find_scenario
from bench.scenarios.plan import Planner, PlanOptions, zipf_shares
from bench.scenarios.scenario import ServingScenario
from bench.target.changes import CHANGED
from bench.target.http import Endpoint, TargetError
from bench.target.probe import AUTOMATIC, ServerKind, TargetServer
from bench.text.brought import TraceArrival
from bench.text.prompts import LengthSpread, count_words

ADAPTERS = tuple(f"a{number}" for number in range(1000))


def server(kind: ServerKind = "oneseek", context: int | None = 4096, **fields: Any) -> TargetServer:
    plain = TargetServer(
        Endpoint("http://127.0.0.1:1"),
        kind,
        "base",
        ADAPTERS,
        context,
        {"en": 2.0, "sv": 3.0},
        {"en": "english", "sv": "swedish"},
    )
    return replace(plain, **fields)


def able(scenario: ServingScenario) -> TargetServer:
    """A server that can serve the scenario."""
    return server(adapters=() if scenario.plain else ADAPTERS)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_plans_the_same_requests_for_the_same_seed(scenario: ServingScenario) -> None:
    first, again, other = (
        Planner(scenario, able(scenario), PlanOptions(seed=seed)).plan(40).requests for seed in (1, 1, 2)
    )
    assert first == again != other
    assert [request.number for request in first] == list(range(1, 41))
    assert len({str(request.body) for request in first}) == 40


def test_every_scenario_of_the_suite_is_there() -> None:
    assert [scenario.name for scenario in SCENARIOS] == [
        "english", "swedish", "mixed", "mixed-90-10", "base", "front-end", "conversation", "long-among-short",
        "adapter-churn", "zipf-2", "zipf-16", "zipf-128", "zipf-1000",
        "hot-swap", "cancel-storm", "structured", "multi-model",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'mixd'"):
        find_scenario("mixd")


def test_languages_come_in_their_shares() -> None:
    requests = Planner(find_scenario("mixed-90-10"), server(), PlanOptions()).plan(1000).requests
    assert 60 < Counter(request.language for request in requests)["sv"] < 140


def test_oneseek_is_asked_to_route_and_others_by_name() -> None:
    mixed = find_scenario("mixed")
    automatic = Planner(mixed, server(), PlanOptions()).plan(20).requests
    assert {request.model for request in automatic} == {AUTOMATIC}
    assert all(r.expects == {"en": "english", "sv": "swedish"}[r.language] for r in automatic)
    for planner in (
        Planner(mixed, server(), PlanOptions(ask="names")),
        Planner(mixed, server("vllm"), PlanOptions()),
    ):
        assert {request.model for request in planner.plan(20).requests} == {"english", "swedish"}


def test_a_front_end_detects_the_language_though_the_base_answers() -> None:
    scenario, plain = find_scenario("front-end"), server(adapters=())
    requests = Planner(scenario, plain, PlanOptions()).plan(20).requests
    assert {(request.model, request.expects) for request in requests} == {(AUTOMATIC, "")}
    assert {request.language for request in requests} == {"en", "sv"}
    assert {(request.tokens, request.body["min_tokens"]) for request in requests} == {(64, 64)}
    assert not any("ignore_eos" in request.body for request in requests)
    for target, options in ((plain, PlanOptions(ask="names")), (replace(plain, kind="vllm"), PlanOptions())):
        assert {asked.model for asked in Planner(scenario, target, options).plan(20).requests} == {"base"}
    with pytest.raises(TargetError, match="'front-end'"):
        Planner(scenario, server(), PlanOptions())


def test_a_text_completion_has_the_prompt_of_the_chat() -> None:
    mixed = find_scenario("mixed")
    chats = Planner(mixed, server(), PlanOptions()).plan(9).requests
    texts = Planner(mixed, server(), PlanOptions(endpoint="completions")).plan(9).requests
    assert {request.path for request in texts} == {"/v1/completions"}
    assert [t.body["prompt"] for t in texts] == [c.body["messages"][0]["content"] for c in chats]
    assert [t.tokens for t in texts] == [c.tokens for c in chats]
    assert not any("messages" in request.body for request in texts)


@pytest.mark.parametrize("name", ["conversation", "structured", "multi-model"])
def test_some_scenarios_are_chats_alone(name: str) -> None:
    with pytest.raises(ValueError, match="--endpoint"):
        Planner(find_scenario(name), server(), PlanOptions(endpoint="completions"))


def test_popularity_is_zipfs() -> None:
    assert zipf_shares(3, 1) == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    requests = Planner(find_scenario("zipf-16"), server(), PlanOptions()).plan(4000).requests
    counted = Counter(request.model for request in requests)
    assert set(counted) == set(ADAPTERS[:16])
    assert counted["a0"] / counted["a1"] == pytest.approx(2, rel=0.25)


def test_a_server_with_too_few_adapters_is_named() -> None:
    with pytest.raises(TargetError, match="2 adapters"):
        Planner(find_scenario("zipf-16"), server(adapters=("a", "b")), PlanOptions())
    with pytest.raises(TargetError, match="--adapter sv=NAME"):
        Planner(find_scenario("swedish"), server(by_language={}), PlanOptions()).plan(1)
    with pytest.raises(TargetError, match="vllm"):
        Planner(find_scenario("multi-model"), server("vllm"), PlanOptions())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_prompts_and_answers_fit_a_small_context(scenario: ServingScenario) -> None:
    target = replace(able(scenario), context=1024)
    planned = Planner(scenario, target, PlanOptions()).plan(60)
    for request in planned.requests:
        text = request.body["question"] if scenario.voices else request.body["messages"][0]["content"]
        words = count_words(text) * target.tokens_per_word[request.language]
        assert (words + request.body["max_tokens"] + 20) * scenario.turns <= 1024 + 24 * scenario.turns
    if scenario.long_share:
        assert any("context" in note for note in planned.notes)


def test_a_conversation_stays_with_its_user_language_and_adapter() -> None:
    requests = Planner(find_scenario("conversation"), server(), PlanOptions(ask="names")).plan(40).requests
    sessions = {
        session: [r for r in requests if r.session == session] for session in {r.session for r in requests}
    }
    assert len(sessions) == 10
    for turns in sessions.values():
        assert len(turns) == 4
        assert len({(turn.model, turn.language) for turn in turns}) == 1
    for hand in by_user(requests, 3):
        assert all(sum(r.session == session for r in hand) in (0, 4) for session in sessions)


def test_half_of_a_storm_hangs_up_before_the_end() -> None:
    requests = Planner(find_scenario("cancel-storm"), server(), PlanOptions()).plan(400).requests
    left = [request for request in requests if request.cancel_after]
    assert 150 < len(left) < 250
    assert all(0 < request.cancel_after <= request.body["max_tokens"] for request in left)


def test_the_swapped_adapter_answers_the_swedish_half() -> None:
    requests = Planner(find_scenario("hot-swap"), server(), PlanOptions()).plan(40).requests
    assert {request.model for request in requests if request.language == "sv"} == {CHANGED}


def test_what_a_user_brings_replaces_the_suites_own() -> None:
    brought = PlanOptions(questions=("My own question?",), answer=LengthSpread(5, 0, 5, 5))
    (request,) = Planner(find_scenario("mixed"), server(), brought).plan(1).requests
    assert request.body["messages"][0]["content"] == "My own question?"
    assert (request.tokens, request.language, request.expects) == (5, "", ""), "its language is not known"
    assert request.model == AUTOMATIC
    traced = PlanOptions(trace=(TraceArrival(0, 100, 7), TraceArrival(2.5, 60, 9)))
    first, second = Planner(find_scenario("english"), server(), traced).plan(0).requests
    assert (first.tokens, second.tokens, second.at) == (7, 9, 2.5)
    assert count_words(first.body["messages"][0]["content"]) == pytest.approx(50, abs=8)


def test_a_model_may_end_its_answers_if_it_is_asked_to() -> None:
    (request,) = Planner(find_scenario("base"), server(), PlanOptions(exact=False)).plan(1).requests
    assert request.tokens == 0
    assert "ignore_eos" not in request.body
