"""Rasters that are computed a window at a time, so that memory does not grow with an output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from catalog_builder.pixels.values import Pixels, Quantized, Values
from catalog_builder.pixels.window import Window
from catalog_builder.vectors.regions.plan import Output


class Canvas(Protocol):
    """The pixels of an output."""

    @property
    def is_quantized(self) -> bool:
        """Whether they are codes and scales; if not, float32 values."""

    def read(self, window: Window) -> Pixels:
        """Return the pixels of a window; no data where there are none."""


class Lattice:
    """Tiles put together on the 10 m lattice that they share.

    Parameters
    ----------
    output
        What it is of.
    parts
        The pixels of its parts, by item.
    bands
        Number of bands.
    is_quantized
        Whether it is of codes and scales; if not, of values.
    max_scale
        Pixels whose scale is at least this have no data; None: no limit. Those whose scale is zero,
        negative or infinite never have any, in whichever container they are.
    """

    def __init__(
        self,
        output: Output,
        parts: Mapping[str, Pixels],
        bands: int,
        *,
        is_quantized: bool,
        max_scale: float | None,
    ) -> None:
        self.is_quantized = is_quantized
        self._output, self._parts, self._bands, self._max_scale = output, parts, bands, max_scale

    def read(self, window: Window) -> Pixels:
        """Return the pixels of a window; no data where there are none."""
        kind = Quantized if self.is_quantized else Values
        whole: Pixels = kind.empty(window.shape, self._bands)
        for is_last in (False, True):  # what lies in a tile's own cell comes last, and counts
            for part in self._output.parts:
                mask = part.own if is_last else part.mask
                if part.source.id not in self._parts or (not is_last and part.own is part.mask):
                    continue
                rows, cols = self._output.place(part)
                found = _common(window, rows, cols)
                if found is None:
                    continue
                to, within = found
                self._draw(whole, to, self._parts[part.source.id], within, mask[within])
        return whole

    def _draw(
        self,
        whole: Pixels,
        to: tuple[slice, slice],
        pixels: Pixels,
        within: tuple[slice, slice],
        mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    ) -> None:
        if not mask.any():
            return
        piece: Pixels
        if isinstance(pixels, Quantized):
            piece = Quantized(np.asarray(pixels.codes[within]), np.asarray(pixels.scales[within]))
        else:
            piece = Values(np.asarray(pixels.values[within]))
        drawn = mask & piece.has_data()
        if self._max_scale is not None:
            drawn &= ~piece.corrupt(self._max_scale)
        if isinstance(whole, Values):
            whole.values[to][drawn] = piece.dequantized()[drawn]
        elif isinstance(piece, Quantized):
            whole.codes[to][drawn] = piece.codes[drawn]
            whole.scales[to][drawn] = piece.scales[drawn]


def _common(
    window: Window, rows: slice, cols: slice
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Return what a window and a part have in common, in either; None if nothing."""
    top, left = max(rows.start, window.row), max(cols.start, window.col)
    bottom, right = min(rows.stop, window.row + window.height), min(cols.stop, window.col + window.width)
    if top >= bottom or left >= right:
        return None

    def of(row: int, col: int) -> tuple[slice, slice]:
        return slice(top - row, bottom - row), slice(left - col, right - col)

    return of(window.row, window.col), of(rows.start, cols.start)
