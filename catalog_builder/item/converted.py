"""The item's fields about its COGs: the stored metadata of a converted tile-year, as slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog_builder.item.item import RANGE, STATISTICS, Has
from catalog_builder.item.statistics import decode_code_range, decode_statistics
from catalog_builder.item.template import BandNumbers
from catalog_builder.tile.files import ASSET_FACTS

COG_COLUMNS = (
    "content",
    "visual_content",
    *(f"{role}_{fact}" for role, fact in ASSET_FACTS),
    "source",
    "statistics",
    "code_range",
)
"""Columns of the table ``cog``, in order; see :data:`catalog_builder.build.converted.FACTS`."""


def cog_slots(columns: Mapping[str, Sequence[Any]], flags: npt.NDArray[np.integer]) -> dict[str, Any]:
    """Return the item's slots that are filled from the conversion.

    Parameters
    ----------
    columns
        :data:`COG_COLUMNS` and ``valid_fraction``, None where a tile-year is not converted.
    flags
        :class:`Has` of each.
    """
    slots: dict[str, Any] = {
        "cog": _hex(columns["content"]),
        "visual": _hex(columns["visual_content"]),
        "valid_fraction": [np.nan if v is None else v for v in columns["valid_fraction"]],
        "band_statistics": [_statistics(v) for v in columns["statistics"]],
        "code_range": [_code_range(v) for v in columns["code_range"]],
    }
    for role, fact in ASSET_FACTS:
        values = columns[f"{role}_{fact}"]
        slots[f"cog_{role}_{fact}"] = _hex(values) if fact == "sha256" else [v or 0 for v in values]
    # The float32 views are VRTs beside a native pair, and the COG itself in the float32 profile. Where the
    # view for windows was not written yet, the other one is used for both.
    floats, windows = ((flags & int(bit)) != 0 for bit in (Has.COG_FLOAT, Has.COG_WINDOW))
    of_floats = zip(columns["statistics"], floats.tolist(), strict=True)
    slots["value_range"] = [_value_range(v) if is_float else None for v, is_float in of_floats]
    for fact in ("size", "sha256"):
        own, view = slots[f"cog_embeddings_{fact}"], slots[f"cog_vrt_{fact}"]
        f32 = slots[f"cog_f32_{fact}"] = _where(floats, own, view)
        slots[f"cog_f32_window_{fact}"] = _where(windows, slots[f"cog_window_{fact}"], f32)
    slots["cog_f32_header"] = slots["cog_embeddings_header"]
    return slots


def unconverted_slots(n: int) -> dict[str, Any]:
    """Return the slots that come from conversion for ``n`` tile-years of which none is converted.

    Arrow needs every column and its type, also of rows that have nothing in it.
    """
    nothing = dict.fromkeys((*COG_COLUMNS, "valid_fraction"), (None,) * n)
    return cog_slots(nothing, np.zeros(n, np.int32))


def _where(chosen: npt.NDArray[np.bool_], values: Sequence[Any], otherwise: Sequence[Any]) -> list[Any]:
    return [a if yes else b for yes, a, b in zip(chosen.tolist(), values, otherwise, strict=True)]


def _hex(values: Sequence[bytes | None]) -> list[str]:
    return [v.hex() if v else "" for v in values]


def _statistics(blob: bytes | None) -> BandNumbers | None:
    return None if blob is None else BandNumbers(STATISTICS, lambda: decode_statistics(blob))


def _value_range(blob: bytes | None) -> BandNumbers | None:
    return None if blob is None else BandNumbers(RANGE, lambda: decode_statistics(blob)[: len(RANGE)])


def _code_range(blob: bytes | None) -> BandNumbers | None:
    return None if blob is None else BandNumbers(RANGE, lambda: decode_code_range(blob))
