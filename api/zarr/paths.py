"""Addresses in the hierarchy of arrays: which document or chunk a path names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from catalog_builder.zone_arrays.metadata import BULK_CHUNK, CHUNK

_PATH = re.compile(
    r"(?P<dataset>[^/@]+)(?:@(?P<build>[^/]*))?(?P<bulk>/bulk)?"
    r"(?:/(?P<group>utm[0-9]{2})(?:/(?P<array>[a-z0-9_]+))?)??"
    r"(?:/(?P<rest>zarr\.json|c(?:/(?:0|[1-9][0-9]{0,8})){1,4}))?"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A parsed path."""

    dataset: str
    """Directory name of the dataset."""
    build: str | None
    """The build that it must be of; None: the one in service."""
    side: int
    """Rows and columns of chunks."""
    group: str | None
    array: str | None
    chunk: tuple[int, ...] | None
    """Which chunk of the array; None: a document."""
    is_folder: bool
    """Whether it names a group or an array, and not its document."""


def asked(path: str) -> Asked | None:
    """Parse a path below ``/zarr/``; None if it is none that there can be.

    >>> asked("v1/utm31/scales/c/7/12/0").chunk
    (7, 12, 0)
    >>> asked("v1.1-cam@0f3a/bulk/utm31/zarr.json").build
    '0f3a'
    >>> asked("v1/utm31/c/0") is None, asked("v1/utm31/scales/c/01/0/0") is None
    (True, True)
    """
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    rest, array = match["rest"], match["array"]
    is_chunk = rest is not None and rest != "zarr.json"
    if is_chunk and array is None:
        return None
    return Asked(
        match["dataset"],
        match["build"],
        BULK_CHUNK if match["bulk"] else CHUNK,
        match["group"],
        array,
        tuple(int(n) for n in rest.split("/")[1:]) if is_chunk else None,
        rest is None,
    )
