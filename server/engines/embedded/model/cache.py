"""Cache of built ONNX graphs on disk, by the base model's digest and the build settings. A graph that is
missing or incomplete is built.

A graph is built in a temporary folder, which is renamed when complete. Several processes may build the same
graph at once: the first to finish wins, and the others use its graph.
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

BUILDER_VERSION = 7
"""Version of the graph builder. Increase it with every change to the graph or to the layout of its weights,
so that graphs are rebuilt.
"""
MANIFEST_FILE = "graph.json"
STALE_SECONDS = 24 * 3600.0
"""Age in seconds at which the folder of an unfinished graph build is removed."""
_LEFTOVERS = (".*.tmp", ".building-*", ".torn-*")
"""Name patterns of folders that a killed graph build leaves. Only the first is still written; the others are
from earlier releases.
"""


@dataclass(frozen=True, slots=True)
class BuiltGraph:
    """A base model's ONNX graph on disk, ready to run."""

    folder: Path
    config: ModelConfig
    variant: Variant
    dtype: Dtype
    quantize: Quantize

    @property
    def path(self) -> Path:
        """Path of the graph's ONNX file. The weights are in another file of the same folder."""
        return self.folder / GRAPH_FILE


@dataclass(frozen=True, slots=True)
class _Manifest:
    """Contents of `graph.json`, which describes a complete graph.

    The file is written last, so a folder without it is incomplete.
    """

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
    """Find the ONNX graph of the base model in the folder `model_dir`, or build it. Graphs are in the folder
    `graphs_dir`.

    `progress` is called with (bytes written, bytes in all) while the graph is built, and never if it exists
    already. Raises `UnsupportedModelError`, `CheckpointError` or `OSError`.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]*", base_digest):
        raise ValueError(
            f"base_digest {base_digest!r} is not a digest such as sha256:0123abcd, so the graph's folder "
            "cannot be named after it"
        )
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
    """Choose the number format of the weights on this machine for the setting `quantize`.

    Raises `ValueError` if the setting is unknown.
    """
    if quantize == "none":
        return "none"
    if quantize not in BITS:
        raise ValueError(f"quantize {quantize!r} is not a known weight format; use none, {', '.join(BITS)}")
    return variant.choose_method(quantize)


def _build(model_dir: Path, graph: BuiltGraph, wanted: _Manifest, progress: BuildProgress | None) -> None:
    plan, target = plan_graph(graph.config, graph.variant, graph.dtype, graph.quantize), graph.folder
    check_coverage(plan, graph.config, model_dir)
    free = shutil.disk_usage(target.parent).free
    if plan.size > free:
        raise OSError(
            errno.ENOSPC,
            f"the ONNX graph of the base needs {plan.size >> 20} MiB on disk, but only {free >> 20} MiB are "
            "free",
            str(target.parent),
        )
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
    """Remove the folder `target`, unless it holds the complete graph, built by another process in the
    meantime.
    """
    with suppress(FileNotFoundError):
        if target.exists() and not _whole(target, wanted):
            remove_folder(target)


def _whole(folder: Path, wanted: _Manifest) -> bool:
    """Return True if `folder` holds a complete graph that was built with the settings in `wanted`."""
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
    """Remove folders of killed graph builds that are older than `STALE_SECONDS`."""
    for folder in (path for pattern in _LEFTOVERS for path in parent.glob(pattern)):
        try:
            if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue
