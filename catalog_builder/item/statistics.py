"""Statistics of bands, packed into bytes and back."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import numpy.typing as npt

from catalog_builder.item.item import RANGE, STATISTICS


def encode_code_range(values: npt.NDArray[np.int8] | None) -> str:
    """Pack minima and maxima of codes, int8 (2, bands), into base64 text of their bytes; empty for None."""
    return "" if values is None else base64.b64encode(values.tobytes()).decode()


def decode_code_range(blob: bytes) -> npt.NDArray[np.int8]:
    """Return int8 (2, bands), rows as :data:`RANGE`, from the raw bytes, as stored in index and table."""
    return np.frombuffer(blob, np.int8).reshape(len(RANGE), -1)


def encode_statistics(values: npt.NDArray[np.float32]) -> str:
    """Pack statistics, float32 (4, bands), into base64 text of about 1.5 kB for 128 bands.

    Values are kept to six significant digits, their bytes grouped by significance, then deflated.
    Empty text where there are none (NaN).
    """
    if not np.isfinite(values).all():
        return ""
    plain = np.array([float(f"{v:.6g}") for v in values.ravel().tolist()], dtype="<f4")
    planes = plain.view(np.uint8).reshape(-1, 4).T.tobytes()
    return base64.b64encode(zlib.compress(planes, 9)).decode()


def decode_statistics(blob: str | bytes) -> npt.NDArray[np.float32]:
    """Unpack :func:`encode_statistics` (text), or its raw bytes (as stored in index and table).

    Returns
    -------
    numpy.ndarray
        float32 (4, bands), rows as :data:`STATISTICS`.
    """
    raw = base64.b64decode(blob) if isinstance(blob, str) else blob
    planes = np.frombuffer(zlib.decompress(raw), np.uint8).reshape(4, -1)
    return np.ascontiguousarray(planes.T).view("<f4").astype(np.float32).reshape(len(STATISTICS), -1)
