"""Schemathesis: every operation that /openapi.json describes, with what fits its schema and what does not."""

from __future__ import annotations

import httpx
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from .conftest import Served

EXAMPLES = 15
"""Of each operation: minutes are few in CI. More, by hand, with schemathesis's own command."""
BOUND = {"max_tokens": 2, "max_completion_tokens": 2, "max_output_tokens": 2, "n": 1}
"""Answers are short whatever an example asks for."""


def test_every_operation_keeps_to_its_description(server: Served) -> None:
    schema = schemathesis.openapi.from_url(server.root + "/openapi.json", headers=keyed(server))
    operations = [operation.ok() for operation in schema.get_all_operations()]
    assert len(operations) >= 10
    with httpx.Client(headers=keyed(server), timeout=60) as client:
        assert client.get(server.root + "/openapi.json").json()["openapi"].startswith("3.")
    for operation in operations:
        holds(operation, server)


def holds(operation: schemathesis.schemas.APIOperation, server: Served) -> None:
    """No answer is a 500 or other than described."""

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def each(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict):
            case.body |= {name: bound for name, bound in BOUND.items() if name in case.body}
        checks = [not_a_server_error, content_type_conformance, response_schema_conformance]
        case.call_and_validate(base_url=server.root, headers=keyed(server), checks=checks)

    from hypothesis import given

    given(case=operation.as_strategy())(each)()


def keyed(server: Served) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.key}"}
