"""Takes a version out of the registry as a plain PEFT folder, or as a zip file of one."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from adapters.errors import AdapterError, StoreError
from adapters.files.atomic import staged_file, staged_folder
from adapters.lora.card import CARD_FILE
from adapters.lora.config import CONFIG_FILE
from adapters.lora.digest import adapter_digest
from adapters.lora.manifest import MANIFEST_FILE
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.registry.listing import Held

_FILES = (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE, CARD_FILE)


def export(held: Held, output: Path) -> Path:
    """Write `held` to the folder `output`, or to a file where that ends in `.zip`, and answer where it is.

    The same version makes the same bytes each time. Raises `StoreError` where `output` exists, `AdapterError`
    where the version is no longer what was added.
    """
    digest = held.read().digest
    if output.exists():
        raise StoreError(f"{output} exists. Name another place, or remove it first.")
    if output.suffix.lower() != ".zip":
        with staged_folder(output) as folder:
            for file in _present(held):
                shutil.copyfile(file, folder / file.name)
            if adapter_digest(folder) != digest:
                raise AdapterError(held.folder, "changed while it was read", "Try again.")
        return output
    with staged_file(output) as path, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in _present(held):
            entry = zipfile.ZipInfo(f"{output.stem}/{file.name}", (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return output


def _present(held: Held) -> list[Path]:
    return [held.folder / name for name in _FILES if (held.folder / name).is_file()]
