"""The key ranges of a selection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from catalog_builder.catalog.index.keys import (
    Keys,
    in_spans,
    key_spans,
    make_key,
    ordinals_years,
    past,
    split_key,
    year_span,
)
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.catalog.index.search.year_blocks import YearBlocks
from catalog_builder.tile import grid
from catalog_builder.tile.cover import Runs


class Ranges:
    """Finds the key ranges of selections, without empty ones.

    Parameters
    ----------
    years
        Years of each collection, ascending, by its ordinal.
    blocks
        Counts of tile-years per block.
    """

    def __init__(self, years: Mapping[int, Sequence[int]], blocks: YearBlocks) -> None:
        self._years = years
        self._blocks = blocks

    def years_of(self, selection: Selection, step: int = 1) -> Iterator[tuple[int, int]]:
        """Yield the (ordinal, year) that a selection spans, in its order or against it."""
        if selection.order is not None:
            for ordinal, year in selection.order[::step]:
                if ordinal in selection.ordinals and (selection.years is None or year in selection.years):
                    yield ordinal, year
            return
        for ordinal in selection.ordinals[::step]:
            for year in self._years[ordinal][::step]:
                if selection.years is None or year in selection.years:
                    yield ordinal, year

    def of(
        self, selection: Selection, after: int | None = None, backwards: bool = False, most: int = 16384
    ) -> Iterator[Keys]:
        """Yield key ranges (n, 2), in order, in batches that grow: the first pages need few of them."""
        if selection.keys is not None:
            yield from self._key_ranges(selection, after, backwards)
            return
        spans = None if selection.runs is None else key_spans(selection.runs)
        size = 32
        waiting = after is not None and selection.order is not None
        for ordinal, year in self.years_of(selection, -1 if backwards else 1):
            if selection.runs is None or spans is None:
                ranges = np.array([year_span(ordinal, year)], np.int64)
            else:
                ranges = self._held(ordinal, year, selection.runs, spans) + make_key(ordinal, year, 0, 0)
            if after is not None:
                # What was walked before the cursor's year is done; the year itself is cut at the cursor.
                if waiting and (ordinal, year) != split_key(after)[:2]:
                    continue
                if waiting or selection.order is None:
                    ranges = past(ranges, after, backwards)
                waiting = False
            if backwards:
                ranges = ranges[::-1]
            at = 0
            while at < len(ranges):
                yield ranges[at : at + size]
                at, size = at + size, min(size * 8, most)

    def _held(self, ordinal: int, year: int, runs: Runs, spans: tuple[Keys, Keys]) -> Keys:
        """Return the spans (n, 2) of the runs that may hold a tile-year."""
        lo, hi = spans
        if len(lo) == len(runs.row):  # whole rows that were joined are long: they need no skipping
            held = self._blocks.of(ordinal, year).may_hold(runs)
            if not held.all():
                lo, hi = lo[held], hi[held]
        return np.column_stack([lo, hi])

    def portions(self, selection: Selection) -> Iterator[Keys]:
        """Yield key ranges in portions that take milliseconds each."""
        if selection.runs is not None or selection.keys is not None:
            yield from self.of(selection, most=256)
            return
        step = 60  # rows: 6 degrees of latitude
        for ordinal, year in self.years_of(selection):
            for row in range(0, grid.N_ROWS, step):
                lo, hi = make_key(ordinal, year, row, 0), make_key(ordinal, year, row + step, 0) - 1
                yield np.array([[lo, hi]], np.int64)

    def _key_ranges(self, selection: Selection, after: int | None, backwards: bool) -> Iterator[Keys]:
        """Yield the selection's own keys, narrowed by its other parts, as ranges of one."""
        keys = np.unique(np.array(selection.keys, np.int64))
        ordinal, year = ordinals_years(keys)
        keep = np.isin(ordinal, np.array(selection.ordinals, np.int64))
        if selection.years is not None:
            keep &= np.isin(year, np.array(selection.years, np.int64))
        if selection.runs is not None:
            keep &= in_spans(keys, key_spans(selection.runs))
        keys = keys[keep]
        ranges = np.column_stack([keys, keys])
        if after is not None:
            ranges = past(ranges, after, backwards)
        if len(ranges):
            yield ranges[::-1] if backwards else ranges
