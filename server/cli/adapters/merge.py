"""Implements `oneseek merge`, which merges an adapter into its base, or combines several adapters."""

from __future__ import annotations

import json as json_format
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from server.cli.flags import Json
from server.config.settings import ResolvedSettings, Settings
from server.config.values import SettingsError, check_flag

if TYPE_CHECKING:
    from adapters.ledger import Record
    from adapters.lora.manifest import Adapter
    from adapters.merging.combine import Combination, CombineResult
    from adapters.merging.merge import MergeResult
    from server.live.catalogue import Catalogue


def merge(
    resolved: ResolvedSettings,
    *,
    output: Path | None = None,
    adapter: str | None = None,
    combine: str | None = None,
    alias: str | None = None,
    version: str | None = None,
    check: Literal["auto", "logits", "tensors"] = "auto",
    method: Literal["svd", "linear", "ties", "dare_ties"] = "svd",
    rank: int | None = None,
    density: float = 0.5,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Merge an adapter into the base to make a standalone model, or several adapters into one.

    With --adapter, the result is a model folder in the base's type, with tokenizer and chat template. With
    --combine, the result is a new adapter: a version in the registry, or a folder if you give --output. To
    continue after Ctrl-C, run the same command again.

    Parameters
    ----------
    output
        Folder to create. It must not exist, unless it has the result of the same merge. With --combine, the
        folder's name is the adapter's name.
    adapter
        Adapter to merge into the base: alias@version, or an alias for its active version.
    combine
        Adapters and weights, such as sv=0.7,en=0.3.
    alias
        With --combine and no --output: the public name of the new adapter.
    version
        With --alias: the version, such as v1.1. Default: the next free one.
    check
        How to compare a merged model with base + adapter. tensors: every tensor. logits: tensors and logits.
        auto: logits too if transformers and PEFT are installed and memory allows.
    method
        Method of --combine. svd: the best approximation of the sum at the given rank. linear: add the factors
        (rough). ties and dare_ties: drop values that disagree.
    rank
        With svd: rank of the new adapter. Default: the sum of all ranks, which is exact.
    density
        With ties and dare_ties: fraction of each adapter's values to keep.
    seed
        With dare_ties: seed of the random choice of values to keep.
    """
    if (adapter is None) == (combine is None):
        raise SettingsError("merge", "give either --adapter alias@version or --combine sv=0.7,en=0.3")
    _check_place(adapter, output, alias, version)
    from server.live.catalogue import open_catalogue

    settings = resolved.settings
    catalogue = open_catalogue(settings)
    if adapter is not None:
        assert output is not None
        found = _merge(catalogue, adapter, output, settings.home, check)
    else:
        assert combine is not None
        how = {"method": method, "rank": rank, "density": density, "seed": seed}
        plan = _plan(catalogue, combine, how)
        if output is not None:
            found = _combine_into_folder(plan, output, settings.home, how)
        else:
            assert alias is not None
            found = _combine_into_registry(plan, catalogue, settings, alias, version, how)
    line = found.pop("line")
    print(json_format.dumps(found, indent=2, ensure_ascii=False) if json else line)
    return 0


def _check_place(adapter: str | None, output: Path | None, alias: str | None, version: str | None) -> None:
    """Raise `SettingsError` unless exactly one destination is given: a folder, or an alias in the
    registry.
    """
    if adapter is not None and output is None:
        raise SettingsError(
            "output", "is missing; name the folder of the merged model, such as models/merged"
        )
    if adapter is not None and (alias or version):
        given = "alias" if alias else "version"
        raise SettingsError(given, "works with --combine only; remove it, since --output names the model")
    if adapter is None and (output is None) == (alias is None):
        raise SettingsError(
            "alias" if alias else "output",
            "is missing or doubled; give exactly one of --alias NAME (a new version in the registry) "
            "and --output FOLDER",
        )
    if version is not None and alias is None:
        raise SettingsError("version", "works with --alias only; remove it, since --output names the folder")


def _merge(
    catalogue: Catalogue, name: str, output: Path, home: Path, check: Literal["auto", "logits", "tensors"]
) -> dict[str, Any]:
    from adapters.ledger import Record
    from adapters.merging.logits import compare_logits
    from adapters.merging.merge import Merge
    from adapters.training.loop.progress import Reporter

    adapter, base = catalogue.served.resolve(name), catalogue.base
    work = Merge(
        base=base.path,
        base_name=base.name,
        adapter=adapter,
        output=output,
        cache=home / "cache",
    )
    record = Record(
        action="merge",
        subject=output.resolve().name,
        inputs={"base": catalogue.served.base_digest, "adapter": adapter.digest},
        details={"adapter": adapter.full_name},
    )
    try:
        merged = work.run(
            Reporter(),
            lambda folder: compare_logits(base.path, adapter.path, folder, check),
            _noting(home, record, "model"),
        )
    except KeyboardInterrupt:
        print("oneseek: stopped; run the same command again to continue", file=sys.stderr)
        raise
    told = f"{base.name} + {adapter.full_name}"
    return {
        "line": f"{'made' if merged.new else 'already made:'} {output}: {told}, {_check(merged)}",
        "path": str(output),
        "new": merged.new,
        "digest": merged.digest,
        "base": {"name": base.name, "digest": merged.base_digest},
        "adapter": {"name": adapter.full_name, "digest": merged.adapter_digest},
        "shards": merged.shards,
        "checks": dict(merged.checks),
    }


def _check(merged: MergeResult) -> str:
    tensors, logits = merged.checks["tensors"], merged.checks["logits"]
    told = f"{tensors['merged']} tensors merged and {tensors['kept']} kept, each one checked"
    if "skipped" in logits:
        return f"{told}; logits not compared: {logits['skipped']}"
    apart = (
        f"differ by {logits['difference']:.2g} of their spread (the adapter's effect: {logits['effect']:.2g})"
    )
    return f"{told}; logits {apart}"


def _combine_into_registry(
    plan: Combination,
    catalogue: Catalogue,
    settings: Settings,
    alias: str,
    version: str | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    from adapters import names
    from adapters.lora.shape_check import ModelShape
    from adapters.registry.intake import Base
    from server.live.catalogue import open_registry

    check_flag("alias", alias, names.alias)
    check_flag("version", version, names.version)
    registry = open_registry(settings)
    if version is not None and any(
        entry.is_named(alias, version) for entry in registry.listing().versions(alias)
    ):
        raise SettingsError(
            "version",
            f"{alias}@{version} exists, and a version never changes; omit --version to use the next free one",
        )
    found = catalogue.base
    base = Base(name=found.name, digest=plan.base_digest, shape=ModelShape.read(found.path))
    with tempfile.TemporaryDirectory(prefix="oneseek-") as place:
        made = plan.make(Path(place) / "combined")
        details = {"weights": _weights(plan), **options}
        added = registry.add(
            made.adapter.path, base=base, alias=alias, version=version, action="merge", details=details
        )
    name = added.adapter.full_name
    waits = f"{added.stands} stays active; to serve it by its alias: oneseek adapters promote {name}"
    then = "it is active" if added.active else waits
    shown = _result_to_json(plan, made, added.adapter)
    line = f"made {name} in {added.adapter.path}: {_about(plan, made)}; {then}"
    return {**shown, "active": added.active, "active_version": added.stands, "line": line}


def _combine_into_folder(
    plan: Combination, output: Path, home: Path, options: Mapping[str, Any]
) -> dict[str, Any]:
    from adapters.ledger import Record
    from adapters.names import FolderName

    try:
        named = FolderName.read(output.resolve().name)
    except ValueError as error:
        raise SettingsError(
            "output", f"the last part of the path becomes the adapter's name, and {error}"
        ) from None
    record = Record(
        action="merge",
        subject=f"{named.alias}@{named.version}",
        inputs={"base": plan.base_digest, "parents": tuple(part.digest for part, _ in plan.parts)},
        details={"weights": _weights(plan), **options},
    )
    made = plan.make(output, _noting(home, record, "adapter"))
    return {**_result_to_json(plan, made, made.adapter), "line": f"made {output}: {_about(plan, made)}"}


def _weights(plan: Combination) -> dict[str, float]:
    return {part.full_name: weight for part, weight in plan.parts}


def _about(plan: Combination, made: CombineResult) -> str:
    told = " + ".join(f"{weight:g} {name}" for name, weight in _weights(plan).items())
    return f"{told} by {plan.method}, rank {made.adapter.rank}, {made.apart:.1%} from the exact blend"


def _result_to_json(plan: Combination, made: CombineResult, adapter: Adapter) -> dict[str, Any]:
    return {
        "path": str(adapter.path),
        "name": adapter.full_name,
        "digest": adapter.digest,
        "rank": adapter.rank,
        "method": plan.method,
        "apart": made.apart,
        "weights": _weights(plan),
    }


def _plan(catalogue: Catalogue, text: str, options: Mapping[str, Any]) -> Combination:
    from adapters.merging.combine import Combination
    from routing.selection import SelectionError, parse_selection

    served = catalogue.served
    try:
        blend = parse_selection(text)
    except SelectionError as error:
        raise SettingsError("combine", error.remedy) from None
    if blend == "auto":
        raise SettingsError("combine", "is missing; give adapters and weights, such as sv=0.7,en=0.3")
    parts = [(served.resolve(name), weight) for name, weight in blend]
    try:
        return Combination(base=catalogue.base.path, base_digest=served.base_digest, parts=parts, **options)
    except ValueError as error:
        raise SettingsError("combine", str(error)) from None


def _noting(home: Path, record: Record, role: str) -> Callable[[str], None]:
    """Return a function that records the new model or adapter in the ledger, unless the ledger knows its
    digest.
    """
    from adapters.ledger import Ledger

    def note(digest: str) -> None:
        ledger = Ledger.open(home / "ledger")
        if not ledger.knows(digest):
            ledger.append(replace(record, outputs={role: digest}))

    return note
