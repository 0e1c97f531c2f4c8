"""A selection of tile-years, and the number of matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from catalog_builder.tile.cover import Runs


@dataclass(frozen=True, slots=True)
class Selection:
    """The tile-years that a search selects; every part narrows it."""

    ordinals: Sequence[int]
    """Collections, ascending."""
    years: Sequence[int] | None = None
    """Years, ascending; None is all."""
    runs: Runs | None = None
    """Cells; None is all."""
    keys: Sequence[int] | None = None
    """Exactly these keys (from ids), narrowed by the rest; None is all."""
    where: str = ""
    """SQL condition over ``t`` (tile) composed of known fragments, with ``?`` for its values."""
    values: tuple[Any, ...] = ()
    cell_sets: tuple[Runs, ...] = ()
    """Sets of cells that ``where`` refers to as ``in_cells(i, t.key)``."""
    order: Sequence[tuple[int, int]] | None = None
    """The (ordinal, year) in the order to walk them, within the other parts; None is ascending."""


@dataclass(frozen=True, slots=True)
class Count:
    """A number of matches."""

    n: int
    exact: bool = True
    """False: counting stopped at its time limit, and ``n`` is extrapolated from what was counted."""
    at_least: int = 0
    """If not exact: the number found so far."""
