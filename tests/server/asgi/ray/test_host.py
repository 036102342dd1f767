"""What a replica is opened with."""

from __future__ import annotations

import pytest

from server.asgi.ray import host
from server.asgi.ray.host import check_gpus
from server.config.sections import EngineOptions
from server.config.settings import Settings
from server.config.values import SettingsError

VLLM = Settings(engine=EngineOptions(kind="vllm"))


@pytest.mark.parametrize("found", [0, 2])
@pytest.mark.parametrize("gpus", [0.0, 0.5, 1.0])
def test_vllm_uses_no_gpu_that_ray_has_not_reserved(
    gpus: float, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(_: object) -> int:
        return found

    monkeypatch.setattr(host, "count_gpus", count)  # this machine may have none
    if found and not gpus:
        with pytest.raises(SettingsError) as caught:
            check_gpus(VLLM, gpus, {})
        assert caught.value.name == "gpus"
    else:
        check_gpus(VLLM, gpus, {})
    check_gpus(Settings(engine=EngineOptions(kind="embedded")), gpus, {})
