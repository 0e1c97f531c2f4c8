"""The header of a ``.npy`` file, and its only reader.

Arrays are read by byte ranges, so only the header is ever parsed, and it is not trusted: it
comes from a file that may contain anything. Every defect raises the same error, with the reason.
"""

from __future__ import annotations

import io
import math
import tokenize
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog_builder.errors import ArrayError

NPY_HEADER = 128
"""Bytes before the array in a ``.npy`` written by NumPy for a tile's shapes (format 1.0, 64-aligned)."""
LONGEST_HEADER = 10_000 + 12
"""Bytes of the longest header that NumPy parses."""
_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """The parsed header of a ``.npy`` file."""

    name: str
    """Name of the file in messages."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    """Bytes before the array."""
    fortran: bool
    """Whether the first index varies fastest (Fortran order)."""

    @property
    def end(self) -> int:
        """Bytes of the whole file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    @property
    def big_endian(self) -> bool:
        """Whether the byte order is big-endian."""
        return self.dtype.newbyteorder("<") != self.dtype

    def require_size(self, size: int, *, exact: bool = False) -> None:
        """Reject a file that is shorter than its header says, or, if ``exact``, longer.

        Raises
        ------
        ArrayError
            If it is.
        """
        if size < self.end or (exact and size != self.end):
            state = "is truncated" if size < self.end else "is too long"
            raise ArrayError(
                f"{self.name} {state}: {size} bytes, an array of {self.shape} {self.dtype} needs {self.end}"
            )

    def require(self, dtype: npt.DTypeLike, *shapes: tuple[int, ...]) -> None:
        """Reject an array of another type or shape, or in Fortran order.

        Parameters
        ----------
        dtype
            In either byte order.
        shapes
            The accepted shapes.

        Raises
        ------
        ArrayError
            If it has another type, shape or order.
        """
        if self.dtype.newbyteorder("=") != np.dtype(dtype) or self.shape not in shapes or self.fortran:
            raise ArrayError(
                f"{self.name} is {self.dtype} {self.shape} in {'Fortran' if self.fortran else 'C'} order: the"
                f" tile's formula expects {np.dtype(dtype)} {' or '.join(map(str, shapes))} in C order"
            )


def header_size(start: bytes) -> int:
    r"""Return how many bytes at the beginning of a ``.npy`` are before its array, by its first 12.

    0 if it is not a ``.npy``, or NumPy would not parse its header: :func:`read_header` says why.

    >>> header_size(b"\x93NUMPY" + bytes([1, 0, 118, 0]) + b"{'")
    128
    """
    if len(start) < 12 or start[:6] != _MAGIC:
        return 0
    size = 10 + int.from_bytes(start[8:10], "little")
    if start[6] > 1:
        size = 12 + int.from_bytes(start[8:12], "little")
    return size if size <= LONGEST_HEADER else 0


def read_header(start: bytes, name: str) -> ArrayHeader:
    """Parse a header.

    Parameters
    ----------
    start
        The file's first bytes: :func:`header_size` of them, or more.
    name
        Name of the file in messages.

    Raises
    ------
    ArrayError
        If it is not a ``.npy``, or its array cannot be read by byte ranges.
    """
    stream = io.BytesIO(start)
    try:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(stream)
    # the header is a Python literal: these are all that its parser raises
    except (ValueError, SyntaxError, TypeError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise ArrayError(f"{name}: not a .npy file: {_flaw(start, error)}") from None
    if dtype.hasobject:
        raise ArrayError(f"{name}: holds Python objects, which are never unpickled")
    if dtype.kind not in "biufc" or any(isinstance(n, bool) or n < 0 for n in shape):
        raise ArrayError(f"{name}: not a .npy file of numbers: it says {dtype} {shape}")
    return ArrayHeader(name, dtype, tuple(shape), stream.tell(), fortran)


def _flaw(start: bytes, error: Exception) -> str:
    """Return why a header was not parsed; what Python says of a literal is no help by itself."""
    if not start:
        return "it is empty"
    if start[:6] != _MAGIC:
        return f"it begins with {start[:6]!r}, not with {_MAGIC!r}"
    size = header_size(start)
    if len(start) < (size or 12):
        return "it ends within its header"
    if not size and len(start) >= LONGEST_HEADER:
        return f"its header is longer than the {LONGEST_HEADER} bytes that are read"
    return f"its header does not describe an array ({(str(error).strip().splitlines() or [''])[0][:120]})"
