"""JSON from files holds only what other readers of JSON understand."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.errors import AdapterError
from adapters.files.jsonfile import parse_object


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "9" * 400 + ".0"])
def test_no_number_past_every_float(number: str) -> None:
    with pytest.raises(AdapterError):
        parse_object(f'{{"lora_alpha": {number}}}'.encode(), Path("adapter_config.json"), AdapterError)


def test_other_numbers_are_as_they_stand() -> None:
    found = parse_object(b'{"a": 1e308, "b": 16, "c": -0.5}', Path("file.json"), AdapterError)
    assert found == {"a": 1e308, "b": 16, "c": -0.5}
