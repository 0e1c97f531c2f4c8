"""The hierarchy of arrays, and its documents by the Zarr v3 specification.

Upstream's (geotessera 0.11, ``zarr.py``), with chunks where it has shards: codes and scales are sent as they
are, since codes do not compress, and scales do by a seventh only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from catalog_builder.pixels.window import Window
from catalog_builder.stores.extent import centres
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.tile.files import N_BANDS

CHUNK = 32
"""Rows and columns of a chunk of upstream's stores, in which a pixel costs 0.13 MB."""
BULK_CHUNK = 256
"""Rows and columns of a chunk for whoever reads regions: 8 MB."""
EMBEDDINGS, SCALES = "embeddings", "scales"
_INFINITY = "Infinity"
"""The fill value of scales as the specification writes it."""


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """An array of a group, and how it is cut into chunks."""

    name: str
    dtype: np.dtype[Any]
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    fill_value: float | str
    is_compressed: bool = False

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(-(-n // chunk) for n, chunk in zip(self.shape, self.chunks, strict=True))

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk before compression."""
        return int(np.prod(self.chunks)) * self.dtype.itemsize

    def document(self) -> dict[str, Any]:
        """Return the array's ``zarr.json``."""
        little = {"configuration": {"endian": "little"}} if self.dtype.itemsize > 1 else {}
        compressed = {"name": "zstd", "configuration": {"level": _LEVEL, "checksum": False}}
        return {
            "shape": list(self.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunks)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": self.fill_value,
            "codecs": [{"name": "bytes", **little}, *([compressed] if self.is_compressed else [])],
            "attributes": {},
            "dimension_names": list(self.axes),
            "zarr_format": 3,
            "node_type": "array",
            "storage_transformers": [],
        }


def arrays_of(group: ZoneGroup, side: int = CHUNK) -> dict[str, ArrayLayout]:
    """Return the arrays of a group by name.

    Parameters
    ----------
    group
        The zone.
    side
        Rows and columns of a chunk.
    """
    rows, cols, years = *group.shape, len(group.years)
    space, int32, float64 = ("y", "x"), np.dtype(np.int32), np.dtype(np.float64)

    def coordinate(name: str, n: int, dtype: np.dtype[Any], *, long: bool) -> ArrayLayout:
        zero = 0.0 if dtype.kind == "f" else 0
        return ArrayLayout(name, dtype, (name,), (n,), (n,), zero, is_compressed=long)

    found = (
        ArrayLayout(
            EMBEDDINGS,
            np.dtype(np.int8),
            ("time", "band", *space),
            (years, N_BANDS, rows, cols),
            (1, N_BANDS, side, side),
            0,
        ),
        ArrayLayout(
            SCALES, np.dtype(np.float32), ("time", *space), (years, rows, cols), (1, side, side), _INFINITY
        ),
        coordinate("time", years, int32, long=False),
        coordinate("x", cols, float64, long=True),
        coordinate("y", rows, float64, long=True),
        coordinate("band", N_BANDS, int32, long=False),
    )
    return {layout.name: layout for layout in found}


def coordinates(group: ZoneGroup, name: str) -> bytes:
    """Return the only chunk of a coordinate, encoded: ``time``, ``x``, ``y`` or ``band``."""
    if name in ("x", "y"):
        x, y = centres(group)
        return zstandard.ZstdCompressor(_LEVEL).compress((x if name == "x" else y).astype("<f8").tobytes())
    values: Sequence[int] = group.years if name == "time" else range(N_BANDS)
    return np.array(values, "<i4").tobytes()


_LEVEL = 1


def window_of(layout: ArrayLayout, chunk: Sequence[int], group: ZoneGroup) -> Window:
    """Return the pixels of a chunk of codes or scales that are within the group."""
    side = layout.chunks[-1]
    row, col = chunk[-2] * side, chunk[-1] * side
    return Window(row, col, min(side, group.rows - row), min(side, group.cols - col))


def encoded(layout: ArrayLayout, values: npt.NDArray[Any]) -> bytes:
    """Return a chunk of codes (128, rows, columns) or scales (rows, columns) as it is sent.

    At the edges of the array it is filled up: all chunks are of the same size.
    """
    shape = layout.chunks[1:]
    if values.shape != shape:
        whole = np.full(shape, layout.fill_value if layout.name == EMBEDDINGS else np.inf, layout.dtype)
        whole[tuple(slice(n) for n in values.shape)] = values
        values = whole
    return np.ascontiguousarray(values, layout.dtype.newbyteorder("<")).tobytes()


def group_document(group: ZoneGroup, attributes: Mapping[str, Any], side: int = CHUNK) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group, with the metadata of its arrays."""
    metadata = {name: layout.document() for name, layout in arrays_of(group, side).items()}
    return _group(attributes, metadata)


def root_document(
    groups: Mapping[str, tuple[ZoneGroup, Mapping[str, Any]]],
    attributes: Mapping[str, Any],
    side: int = CHUNK,
) -> dict[str, Any]:
    """Return the ``zarr.json`` of the root, with the metadata of everything below it.

    Parameters
    ----------
    groups
        The groups and their attributes, by name.
    attributes
        Of the root.
    side
        Rows and columns of a chunk.
    """
    return _group(attributes, dict(_members(groups, side)))


def _members(
    groups: Mapping[str, tuple[ZoneGroup, Mapping[str, Any]]], side: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, (group, attributes) in sorted(groups.items()):
        yield name, _group(attributes, {})
        for array, layout in sorted(arrays_of(group, side).items()):
            yield f"{name}/{array}", layout.document()


def _group(attributes: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "attributes": dict(attributes),
        "zarr_format": 3,
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": dict(metadata)},
        "node_type": "group",
    }
