"""What a published ``.npy`` says of itself, and whether it is the array that its tile must have."""

from __future__ import annotations

import io
import tokenize
from dataclasses import dataclass

import numpy as np

from api.files.folder import open_below
from api.files.ranges import Span
from catalog_builder.errors import TesseraError


class SourceMismatchError(TesseraError):
    """A source file that is not the array its tile must have (HTTP 409)."""


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What a ``.npy`` says of itself."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    offset: int
    """Bytes before the array."""
    fortran: bool


def read_header(root: str, path: str) -> ArrayHeader:
    """Read the header of a ``.npy`` below a folder.

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message is its path.
    SourceMismatchError
        If it is no ``.npy``, or is shorter than its header says.
    """
    with open_below(root, path) as content:
        start = content.read(Span(0, min(content.size, 4096)))
        size = content.size
    stream = io.BytesIO(start)
    try:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(stream)
    except (ValueError, SyntaxError, tokenize.TokenError) as error:
        raise SourceMismatchError(f"{path} is not a .npy file: {error}") from error
    offset = stream.tell()
    wanted = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size < wanted:
        raise SourceMismatchError(f"{path} is truncated: expected {wanted} bytes, found {size}")
    return ArrayHeader(dtype, tuple(shape), offset, fortran)


def require(header: ArrayHeader, path: str, dtype: str, shapes: list[tuple[int, ...]]) -> None:
    """Raise SourceMismatchError unless an array has the type and one of the shapes, in C order."""
    expected = " or ".join(str(s) for s in shapes)
    if header.dtype.newbyteorder("=") != np.dtype(dtype) or header.shape not in shapes or header.fortran:
        order = "Fortran" if header.fortran else "C"
        raise SourceMismatchError(
            f"{path} is {header.dtype} {header.shape} in {order} order: the tile's formula expects {dtype}"
            f" {expected} in C order"
        )
