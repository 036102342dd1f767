"""What of the engines' contract depends on the architecture, over a base of each; Mistral runs all of it.

`--family NAME` runs every test of the contract over one of them.
"""

from __future__ import annotations

import pytest

from adapters.lora.manifest import Adapter
from server.engines.base import Engine
from tests.server.engines.families import OTHERS
from tests.server.engines.test_contract import (
    check_mixed_batch,
    test_a_next_turn_does_not_pay_for_its_history,
    test_adapters_change_the_answer_and_the_base_stays_itself,
    test_the_fixture_is_a_real_checkpoint,
    test_what_does_not_fit_the_context_is_refused_by_its_field,
)
from tests.server.engines.test_contract_adapters import (
    test_a_blend_differs_from_its_parts,
    test_a_client_that_stalls_holds_up_no_unload,
    test_swapping_a_version_never_serves_the_old_one,
)

__all__ = [
    "test_a_blend_differs_from_its_parts",
    "test_a_client_that_stalls_holds_up_no_unload",
    "test_a_next_turn_does_not_pay_for_its_history",
    "test_adapters_change_the_answer_and_the_base_stays_itself",
    "test_swapping_a_version_never_serves_the_old_one",
    "test_the_fixture_is_a_real_checkpoint",
    "test_what_does_not_fit_the_context_is_refused_by_its_field",
]
"""Collected here again, where `family` says of which base."""

pytestmark = pytest.mark.anyio


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test over each family."""
    metafunc.parametrize("family", OTHERS, indirect=True, scope="session")


async def test_a_mixed_batch_answers_as_each_alone(engine: Engine, voices: dict[str, Adapter]) -> None:
    await check_mixed_batch(engine, voices, 12)
