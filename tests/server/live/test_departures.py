"""The metrics of an adapter go with it, once its last request has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.administered import Place, add, administered, ask, change, done, load, unload, until
from tests.server.http_server import Serving


@pytest.fixture
def serving(place: Place) -> Iterator[Serving]:
    with administered(place, place.settings(follow_registry=0.05)) as serving:
        yield serving


def series(serving: Serving, *labels: str) -> list[str]:
    return [name for name in serving.counts() if all(label in name for label in labels)]


def test_what_is_unloaded_has_no_series_once_its_last_request_has_ended(
    place: Place, serving: Serving
) -> None:
    client = serving.http
    for name, number in (("first", 1), ("second", 2)):
        assert load(client, name, place.more(number)).status_code == 200
        assert ask(client, name).status_code == 200
    assert len({name.partition("{")[0] for name in series(serving, 'adapter="first"')}) > 15
    body = {"model": "first", "messages": [{"role": "user", "content": "Hej"}]}
    body |= {"max_tokens": 200, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        assert unload(client, "first").status_code == 200
        assert series(serving, 'adapter="first"', "oneseek_tokens_total")
        assert [line for line in lines if line][-1] == "data: [DONE]"
    until(lambda: not series(serving, 'adapter="first"'))
    assert series(serving, 'adapter="second"', "oneseek_tokens_total")
    assert load(client, "first", place.more(1)).status_code == 200
    assert ask(client, "first").status_code == 200
    (tokens,) = series(serving, 'adapter="first"', "oneseek_tokens_total", 'kind="completion"')
    assert 0 < serving.counts()[tokens] <= 8, "counted from nothing again"


def test_what_is_retired_takes_its_version_and_leaves_its_alias(place: Place, serving: Serving) -> None:
    client = serving.http
    for version, number in (("v1.0", 1), ("v1.1", 2)):
        done(add(client, place.more(number), alias="zero", version=version, language="sv"))
        assert ask(client, f"zero@{version}").status_code == 200
    assert series(serving, 'adapter="zero"', 'version="v1.1"', "oneseek_time_to_first_token")
    done(change(client, "zero@v1.1", "retire"))
    until(lambda: not series(serving, 'adapter="zero"', 'version="v1.1"'))
    assert series(serving, 'adapter="zero"', 'version="v1.0"', "oneseek_time_to_first_token")
    assert series(serving, 'adapter="zero"', "oneseek_request_duration")
