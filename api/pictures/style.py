"""The style of an image, from the parameters ``bands`` and ``rescale``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import Request

from catalog_builder.errors import QueryError
from catalog_builder.tile.files import N_BANDS

Rescale = tuple[tuple[float, float], ...]
Bands = tuple[int, int, int]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Style:
    """How embeddings become colours."""

    bands: Bands | None = None
    """Red, green, blue, from 0; None is the false colour of the dataset."""
    rescale: Rescale | None = None
    """Values that become 0 and 255, for all bands or for each; None is mean -+ 2 standard deviations."""


def style_of(request: Request) -> Style:
    """Return the requested style.

    Raises
    ------
    QueryError
        If a parameter is malformed, or ``rescale`` comes without ``bands``.
    """
    bands = parse_bands(request.query_params.get("bands"))
    rescale = parse_rescale(request.query_params.get("rescale"))
    if rescale is not None and bands is None:
        raise QueryError("rescale requires bands: the false-colour image has its own stretch")
    return Style(bands, rescale)


def parse_bands(text: str | None) -> Bands | None:
    """Parse ``0,1,2``: red, green and blue, bands from 0 to 127; ``b000`` is another name of band 0.

    Raises
    ------
    QueryError
        If it is not three bands.
    """
    if text is None:
        return None
    parts = [part.strip().removeprefix("b") for part in text.split(",")]
    if len(parts) != 3 or not all(
        p.isascii() and p.isdigit() and len(p) <= 3 and int(p) < N_BANDS for p in parts
    ):
        raise QueryError(f"bands must be three numbers 0..{N_BANDS - 1} such as 0,1,2, found '{text[:40]}'")
    red, green, blue = map(int, parts)
    return red, green, blue


def parse_rescale(text: str | None) -> Rescale | None:
    """Parse ``-1,1`` for all bands, or six numbers for one after the other.

    Raises
    ------
    QueryError
        If it is not that, or a range is empty.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (2, 6) or not all(len(p) <= 30 and _NUMBER.fullmatch(p) for p in parts):
        raise QueryError(f"rescale must be min,max or three such pairs, found '{text[:60]}'")
    numbers = [float(part) for part in parts]
    pairs = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    if any(low >= high for low, high in pairs):
        raise QueryError(f"rescale: min must be below max, found '{text[:60]}'")
    return pairs
