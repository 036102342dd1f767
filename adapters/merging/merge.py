"""Merge one adapter into its base as a standalone model, one weight file at a time, without torch.

The unfinished model is in a hidden folder beside the output, with a JSON file that lists the finished weight
files. An interrupted merge continues from them. The folder is renamed to the output when everything in it has
been checked.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from adapters.bases import TOKENIZER_FILES
from adapters.errors import BaseModelError, FileRefusedError
from adapters.files.atomic import flush, flush_folder, rename_folder, replace_file
from adapters.files.jsonfile import read_object, write_object
from adapters.files.weightfiles import MAX_BASE_JSON_BYTES, find_checkpoint, weight_files
from adapters.lora.digest import base_digest
from adapters.lora.manifest import Adapter
from adapters.lora.shape_check import ModelShape
from adapters.lora.weights import read_adapter
from adapters.merging.shards import Shard, Updates, check_merged, check_targets, stored_updates, write_merged
from adapters.version import oneseek_version

MERGE_FILE = "oneseek_merge.json"
"""Name of the file beside the merged weights that records the base, the adapter and the results of the
checks.
"""

_NOTE_FILE = ".merging.json"
_COPIED = ("config.json", "generation_config.json", *TOKENIZER_FILES)
_LEGAL = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "COPYING*")
_SPARE = 64 << 20
"""Bytes of disk space to leave free beyond the size of the merged model."""


class MergeError(FileRefusedError):
    """The merged model cannot be made, or differs from base + adapter."""


class WrongModelError(MergeError):
    """The merged model's logits differ from those of base + adapter, so its files were removed."""


class Stages(Protocol):
    """Interface through which a merge reports its progress. `adapters.training.loop.progress.Reporter`
    implements it.
    """

    def stage(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Any]:
        """Begin a stage of `total` steps, of which `done` are already finished. The context manager's result
        has a method `step(done)` to report progress.
        """
        ...


CheckModel = Callable[[Path], Mapping[str, Any]]
"""Function that compares the model in a folder with base + adapter, and returns the figures. Raises
`WrongModelError` if the model differs, and `MergeError` if it cannot be compared.
"""

RecordMerge = Callable[[str], object]
"""Function that is called with the merged model's digest before the output folder appears."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """A merged model: written by this merge, or already present and unchanged."""

    path: Path
    digest: str
    """Digest of the merged model, computed like that of a base."""
    base_digest: str
    adapter_digest: str
    shards: int
    checks: Mapping[str, Any]
    new: bool
    """False if the output folder already held this merged model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """The merge of one adapter into its base; `run` carries it out."""

    base: Path
    base_name: str
    adapter: Adapter
    output: Path
    cache: Path | None = None
    """Folder of the file-hash cache that `base_digest` uses; None for no cache."""

    def run(
        self, reporter: Stages, check_model: CheckModel, record: RecordMerge = lambda digest: None
    ) -> MergeResult:
        """Write the merged model to the folder `output`, or return the model there if it is the same merge.

        `record` is called with the model's digest before `output` appears; if it raises, the merge stops.
        Peak memory is the adapter's float32 weights and about 200 MiB. Raises `MergeError` if `output` holds
        something else, the disk is too small, another process is merging there, or a check fails. Raises
        `BaseModelError` and `AdapterError` if the base or the adapter cannot be used. After an error,
        finished weight files are kept for the next merge, except those of a model that failed a check.
        """
        inputs = {"base": base_digest(self.base, self.cache), "adapter": self.adapter.digest}
        if self.output.exists():
            return self._present(inputs)
        sources = [Shard.read(path) for path in weight_files(self.base)]
        updates = self._updates(sources)
        partial = self.output.with_name(f".{self.output.name}.merging")
        partial.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._lock(), timeout=0):
                done = self._resume(partial, inputs)
                self._room(partial, sources, done)
                tensors = self._shards(partial, inputs, sources, updates, done, reporter)
                return self._finish(partial, inputs, tensors, check_model, record)
        except Timeout:
            raise MergeError(
                partial,
                "another process is merging into this folder",
                "Wait until that process has finished.",
            ) from None

    def _lock(self) -> Path:
        """Return the path of the merge's lock file, in the cache or the temporary folder. Inside the output
        folder, the open lock file would keep Windows from renaming that folder.
        """
        place = self.cache or Path(tempfile.gettempdir())
        place.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(str(self.output.resolve()).encode()).hexdigest()[:32]
        return place / f"oneseek-merge-{name}.lock"

    def _updates(self, sources: list[Shard]) -> Updates:
        config = read_object(self.base / "config.json", MAX_BASE_JSON_BYTES, BaseModelError)
        if config.get("quantization_config"):
            raise BaseModelError(
                self.base / "config.json",
                "the base's weights are quantized, so an update cannot be added to them",
                "Merge the adapter into the unquantized base instead.",
            )
        weights = read_adapter(self.adapter.path, ModelShape.read(self.base), digest=self.adapter.digest)
        entries = {entry.name: entry for shard in sources for entry in shard.entries}
        updates = stored_updates(weights, entries)
        check_targets(entries, updates, self.base)
        return updates

    def _finish(
        self,
        partial: Path,
        inputs: Mapping[str, str],
        tensors: Mapping[str, Any],
        check_model: CheckModel,
        record: RecordMerge,
    ) -> MergeResult:
        self._copy(partial)
        if base_digest(self.base, self.cache) != inputs["base"]:
            raise MergeError(self.base, "the base changed while it was merged", "Merge the adapter again.")
        try:
            checks = {"tensors": tensors, "logits": dict(check_model(partial))}
        except WrongModelError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        manifest = self._manifest(partial, inputs, checks)
        write_object(partial / MERGE_FILE, manifest)
        if self.output.exists():
            raise MergeError(
                self.output,
                "the output was created by another program during the merge",
                "Choose another path with --output.",
            )
        record(manifest["digest"])
        (partial / _NOTE_FILE).unlink()
        flush_folder(partial)
        rename_folder(partial, self.output)
        flush_folder(self.output.parent)
        return _merged(self.output, manifest, new=True)

    def _shards(
        self,
        partial: Path,
        inputs: Mapping[str, str],
        sources: list[Shard],
        updates: Updates,
        done: dict[str, dict[str, Any]],
        reporter: Stages,
    ) -> dict[str, Any]:
        """Write and check the weight files that are not in `done`. Returns the comparison figures of all
        weight files together.
        """
        size = sum(2 * shard.size for shard in sources if shard.path.name not in done)
        with reporter.stage("merging (MiB)", size >> 20) as stage:
            behind = 0

            def progress(count: int) -> None:
                nonlocal behind
                before, behind = behind >> 20, behind + count
                if behind >> 20 > before:
                    stage.step(behind >> 20)

            for source in sources:
                name = source.path.name
                if name in done:
                    continue
                temporary = partial / f"{name}.tmp"
                write_merged(source, temporary, updates, progress)
                flush(temporary)
                verdict = check_merged(source, temporary, updates, progress)
                digest = _sha256(temporary)
                replace_file(temporary, partial / name)
                flush_folder(partial)
                done[name] = {
                    "sha256": digest,
                    "merged": verdict.merged,
                    "kept": verdict.kept,
                    "worst": round(verdict.worst, 4),
                }
                write_object(partial / _NOTE_FILE, {"inputs": inputs, "shards": done})
        return {
            "merged": sum(shard["merged"] for shard in done.values()),
            "kept": sum(shard["kept"] for shard in done.values()),
            "worst": max(shard["worst"] for shard in done.values()),
            "bound": "half a unit in the last place of base + update, plus float32's error in the sum",
        }

    def _resume(self, partial: Path, inputs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Return the weight files that an interrupted merge finished, after hashing them again. Delete all
        other files in `partial`.
        """
        note = partial / _NOTE_FILE
        try:
            found = read_object(note, MAX_BASE_JSON_BYTES, MergeError)
        except MergeError:
            found = {}
        listed: dict[str, dict[str, Any]] = found.get("shards", {}) if found.get("inputs") == inputs else {}
        kept: dict[str, dict[str, Any]] = {}
        for path in sorted(partial.iterdir()):
            if path.name in listed and _sha256(path) == listed[path.name]["sha256"]:
                kept[path.name] = listed[path.name]
            elif path != note:
                path.unlink()
        return kept

    def _room(self, partial: Path, sources: list[Shard], done: Mapping[str, Any]) -> None:
        needed = sum(shard.size for shard in sources if shard.path.name not in done) + _SPARE
        free = shutil.disk_usage(partial).free
        if free < needed:
            raise MergeError(
                partial.parent,
                f"the disk has {free >> 20} MiB free, but the merge needs {needed >> 20} MiB",
                "Free disk space for the merged model, or choose another path with --output.",
            )

    def _copy(self, partial: Path) -> None:
        """Copy the base's config, tokenizer, chat template and licence files to `partial`; never code or
        pickle files.
        """
        legal = [path.name for pattern in _LEGAL for path in self.base.glob(pattern)]
        index = find_checkpoint(self.base).index
        for name in (*_COPIED, *legal, *((index.name,) if index else ())):
            source = self.base / name
            if source.is_file():
                shutil.copyfile(source, partial / name)
                flush(partial / name)

    def _manifest(
        self, partial: Path, inputs: Mapping[str, str], checks: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            "format": 1,
            "base": {"name": self.base_name, "digest": inputs["base"]},
            "adapter": {
                "name": self.adapter.full_name,
                "digest": inputs["adapter"],
                "language": self.adapter.language,
            },
            "digest": base_digest(partial),
            "shards": [path.name for path in weight_files(partial)],
            "checks": checks,
            "made_by": oneseek_version(),
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _present(self, inputs: Mapping[str, str]) -> MergeResult:
        manifest = self.output / MERGE_FILE
        taken = MergeError(
            self.output,
            "the output folder already exists",
            "Choose another path with --output, or remove the folder first.",
        )
        if not manifest.is_file():
            raise taken
        found = read_object(manifest, MAX_BASE_JSON_BYTES, MergeError)
        if {name: found.get(name, {}).get("digest") for name in inputs} != inputs:
            raise taken
        if base_digest(self.output, self.cache) != found.get("digest"):
            raise MergeError(
                self.output,
                "the merged model was changed since it was merged",
                "Remove this folder and merge the adapter again.",
            )
        return _merged(self.output, found, new=False)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _merged(path: Path, manifest: Mapping[str, Any], *, new: bool) -> MergeResult:
    return MergeResult(
        path=path,
        digest=manifest["digest"],
        base_digest=manifest["base"]["digest"],
        adapter_digest=manifest["adapter"]["digest"],
        shards=len(manifest["shards"]),
        checks=manifest["checks"],
        new=new,
    )
