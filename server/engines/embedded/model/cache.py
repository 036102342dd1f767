"""Cache of built graphs on disk, by base digest and build settings. Missing or incomplete graphs are built.

A graph is built in a temporary folder and renamed when complete. Several processes may build the same graph
at once: the first to finish wins, and the others use its graph.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from adapters.files.atomic import remove_folder, staged_folder
from server.engines.embedded.model.builder import DATA_FILE, GRAPH_FILE, BuildProgress, write_graph
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.coverage import check_coverage
from server.engines.embedded.model.decoder import plan_graph
from server.engines.embedded.model.families.lookup import read_model_config
from server.engines.embedded.model.plan import Dtype
from server.engines.embedded.model.quantize import BITS, Quantize
from server.engines.embedded.model.variants import FUSED, Variant

BUILDER_VERSION = 6
"""Increase this with every change to the graph or to the layout of its weights."""
MANIFEST_FILE = "graph.json"
STALE_SECONDS = 24 * 3600.0
"""Age at which the folder of an unfinished build is removed."""
_LEFTOVERS = (".*.tmp", ".building-*", ".torn-*")
"""Names of folders that a killed build leaves; the last two were used by earlier releases."""


@dataclass(frozen=True, slots=True)
class BuiltGraph:
    """A graph on disk, ready to run."""

    folder: Path
    config: ModelConfig
    variant: Variant
    dtype: Dtype
    quantize: Quantize

    @property
    def path(self) -> Path:
        """Path of the ONNX file. Its weights are in the same folder."""
        return self.folder / GRAPH_FILE


@dataclass(frozen=True, slots=True)
class _Manifest:
    """Describes a complete graph. Written last, so a folder without it is incomplete."""

    base_digest: str
    variant: str
    dtype: str
    quantize: str
    builder_version: int
    graph_size: int
    data_size: int


def prepare(
    model_dir: Path,
    graphs_dir: Path,
    base_digest: str,
    quantize: str = "none",
    variant: Variant = FUSED,
    dtype: Dtype = "fp32",
    progress: BuildProgress | None = None,
) -> BuiltGraph:
    """Find the graph of the base in `model_dir` under `graphs_dir`, or build it there.

    `progress` is called with (bytes written, bytes in all) while the graph is built, never if it is found.
    Raises `UnsupportedModelError`, `CheckpointError` or `OSError`.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]*", base_digest):
        raise ValueError(f"base_digest {base_digest!r} is not a digest, so it cannot name a folder")
    method = method_of(quantize, variant)
    config = read_model_config(model_dir)
    parent = graphs_dir / base_digest.replace(":", "-")
    target = parent / f"{variant.name}-{dtype}-{method}-{BUILDER_VERSION}"
    graph = BuiltGraph(target, config, variant, dtype, method)
    wanted = _Manifest(base_digest, variant.name, dtype, method, BUILDER_VERSION, 0, 0)
    if not _whole(target, wanted):
        parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(parent)
        _build(model_dir, graph, wanted, progress)
    return graph


def method_of(quantize: str, variant: Variant) -> Quantize:
    """Choose how this machine holds the weights for `quantize`. Raises `ValueError` for unknown values."""
    if quantize == "none":
        return "none"
    if quantize not in BITS:
        raise ValueError(f"quantize {quantize!r} is unknown; use none, {', '.join(BITS)}")
    return variant.choose_method(quantize)


def _build(model_dir: Path, graph: BuiltGraph, wanted: _Manifest, progress: BuildProgress | None) -> None:
    plan, target = plan_graph(graph.config, graph.variant, graph.dtype, graph.quantize), graph.folder
    check_coverage(plan, graph.config, model_dir)
    free = shutil.disk_usage(target.parent).free
    if plan.size > free:
        why = f"the graph needs {plan.size >> 20} MiB on disk, but only {free >> 20} MiB are free"
        raise OSError(errno.ENOSPC, why, str(target.parent))
    try:
        with staged_folder(target) as folder:
            write_graph(plan, model_dir, folder, progress)
            sizes = [(folder / name).stat().st_size for name in (GRAPH_FILE, DATA_FILE)]
            manifest = asdict(wanted) | {"graph_size": sizes[0], "data_size": sizes[1]}
            (folder / MANIFEST_FILE).write_text(
                json.dumps(manifest, indent=2), encoding="utf-8", newline="\n"
            )
            _make_room(target, wanted)
    except OSError:
        if not _whole(target, wanted):
            raise


def _make_room(target: Path, wanted: _Manifest) -> None:
    """Remove the folder `target`, unless another process has put the complete graph there meanwhile."""
    with suppress(FileNotFoundError):
        if target.exists() and not _whole(target, wanted):
            remove_folder(target)


def _whole(folder: Path, wanted: _Manifest) -> bool:
    """Return True if `folder` holds the complete wanted graph."""
    try:
        raw: object = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        sizes = {
            "graph_size": (folder / GRAPH_FILE).stat().st_size,
            "data_size": (folder / DATA_FILE).stat().st_size,
        }
    except (OSError, ValueError):
        return False
    return raw == asdict(wanted) | sizes


def _remove_stale(parent: Path) -> None:
    """Remove folders of killed builds that are older than `STALE_SECONDS`."""
    for folder in (path for pattern in _LEFTOVERS for path in parent.glob(pattern)):
        try:
            if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue
