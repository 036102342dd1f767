"""Defines every field of the endpoints that change adapters while the server runs. docs/api.md lists the same
fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from adapters.registry.traffic import MOST_VERSIONS
from server.api.fields.generation import known
from server.api.fields.refusals import FieldKind, Refusal
from server.live.roots import MAX_PATH

AdapterName = Annotated[str, Meta(min_length=1, max_length=256)]
FolderPath = Annotated[str, Meta(min_length=1, max_length=MAX_PATH)]
Percent = Annotated[float, Meta(gt=0, le=100)]
Code = Annotated[str, Meta(min_length=2, max_length=3)]


class LoadFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /v1/load_lora_adapter`."""

    lora_name: AdapterName
    lora_path: FolderPath
    load_inplace: bool = False


class UnloadFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /v1/unload_lora_adapter`."""

    lora_name: AdapterName


class AddFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /admin/adapters`."""

    path: FolderPath
    alias: AdapterName | None = None
    version: AdapterName | None = None
    language: Code | None = None
    digest: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class CanaryFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /admin/adapters/{alias}/canary`, which sends a percentage of the requests to other
    versions.
    """

    shares: Annotated[dict[AdapterName, Percent], Meta(min_length=1, max_length=MOST_VERSIONS)]


class ShadowFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /admin/adapters/{alias}/shadow`, which lets a version answer unseen by clients."""

    version: AdapterName
    share: Percent


class SettleFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /admin/adapters/{alias}/settle`, which sends all requests to the active version
    again.
    """

    reason: Annotated[str, Meta(max_length=256)] = ""


class NoFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of endpoints without fields: no body, or an empty object."""


LORA_HINTS = frozenset({"lora_int_id"})
"""Fields that are accepted and ignored, as in vLLM: vLLM's internal number of an adapter."""

LORA_REFUSED: Mapping[str, Refusal] = {
    "is_3d_lora_weight": Refusal("three-dimensional expert (MoE) weights are not supported", (False,)),
}


def lora_table() -> dict[str, FieldKind]:
    """Return every field of vLLM's two endpoints for LoRA adapters, with how it is handled: honoured, ignored
    or refused.
    """
    honoured: dict[str, FieldKind] = dict.fromkeys(known(LoadFields) | known(UnloadFields), "honoured")
    ignored: dict[str, FieldKind] = dict.fromkeys(LORA_HINTS, "ignored")
    refused: dict[str, FieldKind] = dict.fromkeys(LORA_REFUSED, "refused")
    return honoured | ignored | refused


def admin_table() -> dict[str, FieldKind]:
    """Return every field of the `/admin` endpoints, with how it is handled."""
    taken = (AddFields, CanaryFields, ShadowFields, SettleFields)
    return {name: "honoured" for body in taken for name in known(body)}
