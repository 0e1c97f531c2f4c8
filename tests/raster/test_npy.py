"""Headers of ``.npy`` files: what numpy wrote is read as numpy reads it, anything else is one error."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_builder.errors import ArrayError
from catalog_builder.raster.npy import NPY_HEADER, header_size, read_header


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def written(text: str, version: int = 1) -> bytes:
    """Return a file with a header of any text and no array."""
    body = text.encode("latin1")
    return b"\x93NUMPY" + bytes([version, 0]) + len(body).to_bytes(2 if version == 1 else 4, "little") + body


GOOD = npy(np.zeros((3, 4, 128), np.int8))


@pytest.mark.parametrize("dtype", ["int8", "<f4", ">f4", "u2", "c8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(3, 4, 128), (3, 4), (0, 4), ()])
def test_what_numpy_wrote(dtype: str, order: str, shape: tuple[int, ...]) -> None:
    body = npy(np.zeros(shape, dtype, order=order))
    header = read_header(body, "a.npy")
    assert (header.shape, header.dtype) == (shape, np.dtype(dtype))
    assert header.offset == header_size(body[:12]) == NPY_HEADER
    assert header.end == len(body)
    assert header.fortran == (order == "F" and len(shape) > 1 and 0 not in shape)
    assert header.big_endian == dtype.startswith(">")
    header.require_size(len(body), exact=True)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format(version: tuple[int, int]) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.zeros((2, 2), np.int8), version=version)
    header = read_header(stream.getvalue(), "a")
    assert (header.shape, header.offset) == ((2, 2), header_size(stream.getvalue()))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "a.npy: not a .npy file: it is empty"),
        (b"\x93NUM", "not a .npy file"),
        (b"<html>" * 99, "not a .npy file"),
        (b"\x93NUMPY\x09\x00" + bytes(200), "not a .npy file"),
        (GOOD[:40], "not a .npy file"),
        (GOOD[:20] + b"\0" + GOOD[21:], "not a .npy file"),
        (bytes(128), "not a .npy file"),
        (written("{'descr': '|i1', 'fortran_order': False, 'shape': ([[[[, }"), "not a .npy file"),
        (written("(" * 5000), "not a .npy file"),
        (written("{1: 2, 'a': 3}"), "not a .npy file"),
        (written("{'descr': '|i1', 'fortran_order': False, 'shape': (-3, 4), }"), "file of numbers"),
        (written("{'descr': '|i1', 'fortran_order': False, 'shape': (True, 4), }"), "file of numbers"),
        (written("{'descr': '|V99999999999999999', 'fortran_order': False, 'shape': (), }"), "not a .npy"),
        (written("{'descr': '<U8', 'fortran_order': False, 'shape': (2,), }"), "not a .npy file of numbers"),
        (npy(np.array([None, {}])), "holds Python objects, which are never unpickled"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_error(body: bytes, reason: str) -> None:
    with pytest.raises(ArrayError, match=reason) as caught:
        read_header(body, "a.npy")
    assert str(caught.value).startswith("a.npy")
    assert "\n" not in str(caught.value)


def test_huge_shapes_are_counted_exactly() -> None:
    """In int64 this many bytes would be 0."""
    header = read_header(
        written(f"{{'descr': '|i1', 'fortran_order': False, 'shape': ({1 << 40}, {1 << 40}), }}"), "a.npy"
    )
    assert header.end == header.offset + (1 << 80)
    with pytest.raises(ArrayError, match=r"a.npy is truncated: 500 bytes, an array of .* needs 12089258196"):
        header.require_size(500)


def test_size_and_kind_are_required() -> None:
    header = read_header(GOOD, "x")
    header.require("int8", (1,), (3, 4, 128))
    header.require_size(len(GOOD) + 1)
    with pytest.raises(ArrayError, match=r"x is int8 \(3, 4, 128\) in C order: the tile's formula expects"):
        header.require("uint8", (3, 4, 128))
    with pytest.raises(ArrayError, match=r"expects int8 \(3, 4\) or \(4, 3\) in C order"):
        header.require("int8", (3, 4), (4, 3))
    with pytest.raises(ArrayError, match="is too long"):
        header.require_size(len(GOOD) + 1, exact=True)
    with pytest.raises(ArrayError, match="in Fortran order"):
        read_header(npy(np.zeros((3, 4), order="F")), "x").require("float64", (3, 4))
    read_header(npy(np.zeros((3, 4), ">f4")), "x").require("float32", (3, 4))


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 127), put=st.binary(min_size=1, max_size=12))
def test_damage_is_an_error_or_another_array(at: int, put: bytes) -> None:
    body = GOOD[:at] + put + GOOD[at + len(put) :]
    try:
        header = read_header(body[:200], "x")
    except ArrayError:
        return
    assert header.offset <= 200
    assert header.end >= header.offset
