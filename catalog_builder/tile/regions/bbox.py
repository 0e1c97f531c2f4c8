"""Parsing of bounding boxes, for the command line, regions and requests."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from catalog_builder.errors import GridError
from catalog_builder.tile.grid import Bounds, split_antimeridian

# float() also accepts 1_0, digits of other scripts, nan and inf: none of them is wanted here.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def read_number(text: str) -> float:
    """Parse a decimal number, with or without an exponent and surrounding space.

    >>> read_number(" -1.5e1 ")
    -15.0

    Raises
    ------
    ValueError
        If the text is anything else, or the number is larger than a double.
    """
    found = float(text) if _NUMBER.fullmatch(text.strip(" \t\r\n")) else math.nan
    if not math.isfinite(found):
        raise ValueError(f"'{text[:80]}' is not a number")
    return found


def read_numbers(text: str) -> list[float]:
    """Parse comma-separated numbers.

    >>> read_numbers("-5.5,49.9, 1.8, 55.8")
    [-5.5, 49.9, 1.8, 55.8]

    Raises
    ------
    ValueError
        If one of them is not a number.
    """
    return [read_number(part) for part in text.split(",")]


def read_bbox(values: Sequence[object]) -> tuple[Bounds, tuple[Bounds, ...]]:
    """Return a box as given, and its one or two parts with west <= east.

    Parameters
    ----------
    values
        West, south, east, north in degrees, or, with heights, which are ignored, west, south, lowest, east,
        north, highest. West may be greater than east: the box crosses the antimeridian.

    Raises
    ------
    GridError
        With what was expected; the caller adds where. NaN and infinite numbers are rejected, and so
        are booleans.

    Examples
    --------
    >>> box, parts = read_bbox([170, -20, -170, -10])
    >>> [tuple(part) for part in parts]
    [(170.0, -20.0, 180.0, -10.0), (-180.0, -20.0, -170.0, -10.0)]
    """
    if len(values) not in (4, 6):
        raise GridError(
            f"expected 4 numbers (west,south,east,north) or 6 (with heights), found {len(values)}"
        )
    numbers = [_checked(value) for value in values]
    if len(numbers) == 6:
        west, south, low, east, north, high = numbers
        if low > high:
            raise GridError(f"lowest height {low:g} is above the highest {high:g}")
    else:
        west, south, east, north = numbers
    return Bounds(west, south, east, north), tuple(split_antimeridian(west, south, east, north))


def describe(value: object) -> str:
    """Return the JSON type of a value, for messages."""
    names = {dict: "an object", list: "an array", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _checked(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise GridError(f"expected numbers, found {describe(value)} {str(value)[:40]!r}")
    return float(value)
