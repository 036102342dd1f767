"""Export a version from the registry as a plain PEFT folder, or as a zip file of one."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from adapters.errors import AdapterError, RegistryError
from adapters.files.atomic import staged_file, staged_folder
from adapters.files.regular import copy_regular, open_regular
from adapters.lora.card import CARD_FILE
from adapters.lora.config import CONFIG_FILE
from adapters.lora.digest import adapter_digest
from adapters.lora.manifest import MANIFEST_FILE
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.registry.listing import VersionFolder

_FILES = (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE, CARD_FILE)


def write_export(entry: VersionFolder, output: Path) -> Path:
    """Write `entry` to the folder `output`, or to a zip file if `output` ends in `.zip`. Returns the path.

    The same version gives the same bytes each time. Raises `RegistryError` if `output` exists, and
    `AdapterError` if the version's files have changed since it was added.
    """
    digest = entry.read().digest
    if output.exists():
        raise RegistryError(f"The path {output} already exists. Choose another path, or remove it first.")
    if output.suffix.lower() != ".zip":
        with staged_folder(output) as folder:
            for file in _present(entry):
                copy_regular(file, folder / file.name)
            if adapter_digest(folder) != digest:
                raise AdapterError(entry.folder, "the adapter changed while it was read", "Try again.")
        return output
    with staged_file(output) as path, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in _present(entry):
            item = zipfile.ZipInfo(f"{output.stem}/{file.name}", (1980, 1, 1, 0, 0, 0))
            item.external_attr = 0o644 << 16
            with open_regular(file) as source, archive.open(item, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return output


def _present(entry: VersionFolder) -> list[Path]:
    return [entry.folder / name for name in _FILES if (entry.folder / name).is_file()]
