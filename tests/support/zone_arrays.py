"""The server's arrays of zones as numpy arrays, read chunk by chunk over HTTP; and stores, by zarr-python."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import zarr


@dataclass
class Served:
    """A root of arrays, such as ``http://localhost:8000/zarr/v1``."""

    url: str

    def __post_init__(self) -> None:
        self.client = httpx.Client(timeout=60)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(f"{self.url}/{path}", headers=headers)

    def document(self, path: str) -> Any:
        found = self.get(path)
        assert found.status_code == 200, found.text
        return json.loads(found.content)

    def chunk(self, group: str, name: str, numbers: tuple[int, ...]) -> npt.NDArray[Any] | None:
        """Return a chunk without its first axis, time; None if it is absent."""
        about = self.document(f"{group}/{name}/zarr.json")
        found = self.get(f"{group}/{name}/c/{'/'.join(map(str, numbers))}")
        if found.status_code == 404:
            return None
        assert found.status_code == 200, found.text
        dtype = np.dtype(about["data_type"]).newbyteorder("<")
        return np.frombuffer(found.content, dtype).reshape(
            about["chunk_grid"]["configuration"]["chunk_shape"][1:]
        )

    def window(self, group: str, time: int, row: int, col: int, height: int, width: int) -> tuple[Any, Any]:
        """Return codes (128, height, width) and scales (height, width) of a window."""
        side = self.document(f"{group}/scales/zarr.json")["chunk_grid"]["configuration"]["chunk_shape"][-1]
        top, left = row // side, col // side
        down, right = (row + height - 1) // side + 1, (col + width - 1) // side + 1
        codes = np.zeros((128, (down - top) * side, (right - left) * side), np.int8)
        scales = np.full(codes.shape[1:], np.inf, np.float32)
        for r in range(top, down):
            for c in range(left, right):
                at = np.s_[(r - top) * side : (r - top + 1) * side, (c - left) * side : (c - left + 1) * side]
                part = self.chunk(group, "embeddings", (time, 0, r, c))
                if part is not None:
                    codes[:, at[0], at[1]] = part
                part = self.chunk(group, "scales", (time, r, c))
                if part is not None:
                    scales[at] = part
        inner = np.s_[row - top * side :, col - left * side :]
        return codes[:, *inner][:, :height, :width], scales[inner][:height, :width]


def stored(
    store: Path, group: str, time: int, row: int, col: int, height: int, width: int
) -> tuple[Any, Any]:
    """Return the same of a Zarr store on the disk."""
    found = zarr.open_group(store, mode="r")[group]
    at = np.s_[row : row + height, col : col + width]
    return np.asarray(found["embeddings"][time, :, *at]), np.asarray(found["scales"][time, *at])
