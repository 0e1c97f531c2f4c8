"""Shards of an array, put together block by block: a whole one may have 2 GB.

zarr-python can write a shard only at once, or by reading and writing again all that is in it. Here its
own codecs encode the chunks of a block, and the shard is their bytes one after the other, with an index at
the end (Zarr's codec ``sharding_indexed``). Chunks are in zarr-python's order, Morton's, so that the bytes
are those that it would write.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from catalog_builder.synthetic.stores.mosaic import BLOCK

if TYPE_CHECKING:
    import zarr

_NO_CHUNK = np.uint64(2**64 - 1)
"""Offset and length of a chunk that is not stored: all of it is the fill value."""

Blocks = Callable[[int, int], npt.NDArray[Any] | None]
"""From the row and column of a block, counted within the shard, to its values as the array orders its axes,
the first of them 1; None if they are all the fill value."""


class ShardWriter:
    """Writes the shards of one array.

    Parameters
    ----------
    array
        An array with shards, whose first axis is time and whose chunks and shards have one time.
    rows, cols
        Which of its axes are the rows and the columns of pixels.
    keep_fill
        Also store chunks that are the fill value throughout.
    """

    def __init__(self, array: zarr.Array[Any], rows: int, cols: int, *, keep_fill: bool = False) -> None:
        if array.shards is None:
            raise ValueError(f"{array.path}: has no shards")
        self.array = array
        self._axes = (rows, cols)
        self._side = array.shards[rows]
        self._chunk = array.chunks[rows]
        self._grid = tuple(s // c for s, c in zip(array.shards, array.chunks, strict=True))
        shape = list(array.chunks)
        for axis in self._axes:
            shape[axis] = max(BLOCK, self._chunk)
        self._encoder = _Encoder(array, tuple(shape), keep_fill=keep_fill)

    def write(self, file: BinaryIO, blocks: Blocks) -> int:
        """Write a shard; return how many chunks are in it. With none of them there is no shard to keep."""
        index = np.full((*self._grid, 2), _NO_CHUNK, np.uint64)
        offset = count = 0
        per_block = BLOCK // self._chunk
        for row, col in morton(self._side // BLOCK):
            values = blocks(row, col)
            if values is None:
                continue
            found = self._encoder.chunks(values)
            for r, c in morton(per_block):
                data = found.get(self._key(r, c))
                if data is None:
                    continue
                file.write(data)
                index[self._key(row * per_block + r, col * per_block + c)] = offset, len(data)
                offset += len(data)
                count += 1
        if count:
            file.write(_encoded_index(index))
        return count

    def _key(self, row: int, col: int) -> tuple[int, ...]:
        key = [0] * len(self._grid)
        key[self._axes[0]], key[self._axes[1]] = row, col
        return tuple(key)


class _Encoder:
    """Chunks of an array as its codecs encode them: those of an array without shards in memory."""

    def __init__(self, array: zarr.Array[Any], shape: tuple[int, ...], *, keep_fill: bool) -> None:
        import zarr

        self._stored: dict[str, Any] = {}
        self._array = zarr.create_array(
            zarr.storage.MemoryStore(self._stored),
            shape=shape,
            chunks=array.chunks,
            dtype=array.dtype,
            fill_value=array.fill_value,
            filters=array.filters,
            serializer=array.serializer or "auto",
            compressors=array.compressors,
            config={"write_empty_chunks": keep_fill},
        )
        self._metadata = set(self._stored)

    def chunks(self, values: npt.NDArray[Any]) -> dict[tuple[int, ...], bytes]:
        """Return the encoded chunks by their place; without those that are the fill value throughout."""
        self._array[...] = values
        return {
            tuple(map(int, key.split("/")[1:])): self._stored.pop(key).to_bytes()
            for key in set(self._stored) - self._metadata
        }


def morton(side: int) -> Iterator[tuple[int, int]]:
    """Yield the rows and columns of a square, whose side is a power of two, in zarr-python's order.

    >>> list(morton(2))
    [(0, 0), (1, 0), (0, 1), (1, 1)]
    """
    bits = round(math.log2(side))
    for code in range(side * side):
        row = sum((code >> (2 * bit) & 1) << bit for bit in range(bits))
        col = sum((code >> (2 * bit + 1) & 1) << bit for bit in range(bits))
        yield row, col


def _encoded_index(index: npt.NDArray[np.uint64]) -> bytes:
    """Return the index of a shard as bytes, little endian with its checksum."""
    import zarr
    from zarr.codecs import BytesCodec, Crc32cCodec

    stored: dict[str, Any] = {}
    array = zarr.create_array(
        zarr.storage.MemoryStore(stored),
        shape=index.shape,
        chunks=index.shape,
        dtype=np.uint64,
        fill_value=0,
        serializer=BytesCodec(endian="little"),
        compressors=Crc32cCodec(),
    )
    array[...] = index
    (data,) = (value for key, value in stored.items() if key.startswith("c/"))
    encoded: bytes = data.to_bytes()
    return encoded
