"""The sidecar of a folder of fetched files: geotessera's, with our entries.

Embeddings of two datasets are not comparable, so a folder holds one dataset, which the sidecar records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from catalog_builder.errors import DatasetError, StorageError
from catalog_builder.storage import write_atomic
from catalog_builder.tile.datasets import Dataset

METADATA_FILE = "tessera_metadata.json"
"""Its name in geotessera 0.9 and later, with the same keys."""
_OURS = "tessera_stac"


class Sidecar:
    """The sidecar of one folder.

    Raises
    ------
    DatasetError
        If the folder holds another dataset.
    StorageError
        If the existing file cannot be read.
    """

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self._path = folder / METADATA_FILE
        self._dataset = dataset
        self._outputs: dict[str, dict[str, Any]] = {}
        self._others: dict[str, Any] = {}
        if not self._path.exists():
            return
        try:
            found = json.loads(self._path.read_text())
            version, variant = found.get("dataset_version"), found.get("dataset_variant")
            self._outputs = dict(found.get(_OURS, {}))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise StorageError(f"{self._path}: cannot be read: {error}") from error
        if (version, variant) != (dataset.version, dataset.variant):
            raise DatasetError(
                f"{folder} holds dataset {version}/{variant}, not {dataset.version}/{dataset.variant}:"
                " embeddings of two datasets are not comparable; choose another folder"
            )
        self._others = {k: v for k, v in found.items() if k != _OURS}

    def has(self, name: str, fingerprint: str) -> bool:
        """Return whether an output exists that was made from the same sources in the same way."""
        found = self._outputs.get(name)
        return (
            found is not None
            and found.get("fingerprint") == fingerprint
            and not found.get("skipped")
            and all((self._path.parent / n).exists() for n in found.get("files", ["?"]))
        )

    def conflict(self, name: str, request: str, files: list[str]) -> str:
        """Return why an output cannot be written without replacing another one; empty if it can.

        Parameters
        ----------
        name
            Of the output.
        request
            What it is of, and how it is written. An output of the same request is renewed.
        files
            Its files.
        """
        there = [n for n in files if (self._path.parent / n).exists()]
        found = self._outputs.get(name)
        if found is not None and any((self._path.parent / n).exists() for n in found.get("files", [])):
            # outputs of earlier versions do not say of what region they are
            same = found.get("request") == request
            box = f", of {','.join(map(str, found['bbox']))}" if "bbox" in found else ""
            return (
                "" if same else f"{found['files'][0]} is there, of another region or with other options{box}"
            )
        return f"{there[0]} is there, and {METADATA_FILE} does not say of which region" if there else ""

    def add(self, name: str, entry: dict[str, Any]) -> None:
        """Record an output on disk at once, so that finished outputs are known after an interruption.

        Parameters
        ----------
        name
            Of the output.
        entry
            ``fingerprint``, ``request``, ``bbox``, ``files``, ``year``; ``skipped`` if it is not whole.
        """
        self._outputs[name] = entry
        years = sorted({o["year"] for o in self._outputs.values()})
        ds = self._dataset
        facts = self._others | {
            # as geotessera: of a dataset without .npy files there is no such directory
            **({"dataset_path": ds.directory} if ds.npy is not None or ds.is_synthetic else {}),
            "dataset_variant": ds.variant,
            "dataset_version": ds.version,
            "dataset_version_path": ds.landmask_directory,
            "year": years[0] if len(years) == 1 else years,
            **({"note": "Synthetic pixels. Not TESSERA data."} if ds.is_synthetic else {}),
            _OURS: dict(sorted(self._outputs.items())),
        }
        with write_atomic(self._path) as new:
            new.write_text(json.dumps(facts, indent=2) + "\n")
