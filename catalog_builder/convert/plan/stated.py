"""Which dataset files are of, as far as what lies around them says."""

from __future__ import annotations

import os
from dataclasses import dataclass

from catalog_builder import storage
from catalog_builder.errors import DatasetError
from catalog_builder.manifests.listing.listing import SIDECAR, sidecar_dataset
from catalog_builder.tile.datasets import Dataset, folder_says, unknown_dataset

_ABOVE = 6
"""Folders above a file in which its sidecar may lie: a download has it four above."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What is said of a folder's files."""

    dataset: Dataset | None = None
    doubt: str = ""
    """Why the dataset is not known although something names one; empty if nothing does."""
    place: str = ""
    """What says it: a sidecar, or a folder."""
    is_firm: bool = False
    """Whether it is said of these very files, and not by the name of a folder above what was given."""


_NOTHING = Statement()


class Statements:
    """The statements around the files of one source; each sidecar is read once.

    Parameters
    ----------
    root
        What the user gave: names of folders above it may mean anything, and say something only if nothing
        else does.
    """

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")
        self._sidecars: dict[str, Statement | None] = {}
        self._folders: dict[str, Statement] = {}

    def of(self, address: str) -> Statement:
        """Return what is said of a file: by the nearest sidecar, else by the names of its folders."""
        folder = address.rpartition("/")[0]
        if folder not in self._folders:
            self._folders[folder] = self._of_folder(folder)
        return self._folders[folder]

    def sidecar(self, folder: str) -> Statement | None:
        """Return what the sidecar in a folder says; None if there is none."""
        if folder not in self._sidecars:
            self._sidecars[folder] = _read(f"{folder}/{SIDECAR}")
        return self._sidecars[folder]

    def _of_folder(self, folder: str) -> Statement:
        """Return what is said of a folder's files; the nearest that says something counts."""
        is_local = not storage.scheme(folder)
        for up in range(folder.count("/") + 1):
            if is_local and up < _ABOVE and (found := self.sidecar(folder)) is not None:
                return found
            above, _, name = folder.rpartition("/")
            said = folder_says(name, above.rpartition("/")[2])
            if said is not None and said[1]:
                why = f"{folder}: {unknown_dataset(name)}; say with --dataset which it is"
                return Statement(doubt=why, place=folder)
            if said is not None:
                is_inside = folder.startswith(f"{self._root}/")
                return Statement(said[0], place=folder, is_firm=is_inside and said[0] is not None)
            folder = above
        return _NOTHING


def _read(address: str) -> Statement | None:
    """Read a sidecar (geotessera 0.9 and later)."""
    if not os.path.lexists(address):
        return None
    why = storage.local.oddity(address)
    if not why:
        try:
            return Statement(sidecar_dataset(address), place=address, is_firm=True)
        except DatasetError as error:
            why = str(error)
    return Statement(
        doubt=f"{address}: {why}, so the dataset is not known; say with --dataset which it is", place=address
    )
