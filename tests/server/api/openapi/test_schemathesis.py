"""Whatever fits the document is answered as the document says, and nothing makes the server fail."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

from tests.server.http_server import Serving

FITTING, OTHERS = 3, 4
"""Requests of each operation that fit the document, which generate text, and that do not."""
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.mark.parametrize("fits", [True, False])
def test_answers_are_as_documented(serving: Serving, *, fits: bool) -> None:
    schema = schemathesis.openapi.from_url(serving.url + "/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) > 20
    mode = schemathesis.GenerationMode.POSITIVE if fits else schemathesis.GenerationMode.NEGATIVE
    quick = settings(
        max_examples=FITTING if fits else OTHERS,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    for operation in operations:
        if not fits and not operation.body:
            continue  # nothing of it can be wrong

        @quick
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            case.validate_response(case.call(timeout=60), checks=CHECKS)

        ask()
