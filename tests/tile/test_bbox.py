"""Boxes in text: what is a number, and that the command line, regions and the API agree about it."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from api.request.area import parse_bbox as area_of
from api.search.parameters import PARAMETERS
from catalog_builder.cli.options import parse_area as option_of
from catalog_builder.errors import QueryError, StorageError
from catalog_builder.tile.grid import Bounds
from catalog_builder.tile.regions import bbox
from catalog_builder.tile.regions.region import region_of


def _option(text: str) -> tuple[float, ...]:
    found = option_of([text])
    assert isinstance(found, Bounds)
    return tuple(found)


def _region(text: str) -> tuple[float, ...]:
    return shapely.bounds(region_of(text)).tolist()  # type: ignore[return-value]


def _parameter(text: str) -> tuple[float, ...]:
    (box,) = area_of(PARAMETERS["bbox"].from_text(text, "bbox")).boxes
    return tuple(box)


READERS = (_option, _region, _parameter)
finite = st.floats(-90, 90)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-5.5,49.9,1.8,55.8", (-5.5, 49.9, 1.8, 55.8)),
        (" -5.5, +49.9 ,1.8,5.58e1", (-5.5, 49.9, 1.8, 55.8)),
        ("0,.5,1.,1", (0, 0.5, 1, 1)),
        ("0,50,-10,1,51,900", (0, 50, 1, 51)),
    ],
)
def test_one_box(reader: Callable[[str], object], text: str, expected: tuple[float, ...]) -> None:
    assert reader(text) == pytest.approx(expected, abs=0)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "text",
    [
        "1_0,2,30,4", "１,2,3,4", "1,2,3,٤", "nan,2,3,4", "1,2,3,NaN", "-inf,2,3,4", "1,2,Infinity,4",
        "1,2,3,1e999", "0x1,2,3,4", "1,2,3,4;", "1,2,3", "1,2,3,4,5", "1,2,3,4,5,6,7", "1,2,,4", ",,,",
        "1 2 3 4", "1,2,3,4e", "", "1,2,3,--4",
        "1,2\u00a0,3,4", "0,52,1,51", "0,50,181,51", "0,-91,1,51", "0,0,9,1,1,2",
    ],
)  # fmt: skip
def test_refused_everywhere(reader: Callable[[str], object], text: str) -> None:
    with pytest.raises((QueryError, StorageError)) as error:
        reader(text)
    assert re.search("expected|bbox|height|north", str(error.value))


def test_each_reader_says_where_the_box_was_given() -> None:
    said = []
    for reader in READERS:
        with pytest.raises(QueryError) as error:
            reader("0,52,1,51")
        said.append(str(error.value))
    assert [text.partition(":")[0] for text in said] == ["bbox '0,52,1,51'", "bbox '0,52,1,51'", "bbox"]


@given(finite, finite, st.sampled_from(["{!r}", " {!r}", "{:e} ", "{:+.17g}"]))
def test_numbers_are_those_of_float(a: float, b: float, form: str) -> None:
    text = f"{form.format(a)},{form.format(b)}"
    assert bbox.read_numbers(text) == [float(part) for part in text.split(",")]


@given(st.text(st.sampled_from("0123456789+-.eE_ ٤４naif"), max_size=8))
def test_what_is_read_is_what_float_reads(text: str) -> None:
    try:
        found = bbox.read_number(text)
    except ValueError:
        return
    assert found == float(text)
    assert text.isascii()
    assert "_" not in text


def test_examples() -> None:
    assert doctest.testmod(bbox).failed == 0
