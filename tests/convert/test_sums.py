"""``SHA256`` files beside tiles, as upstream's server has them, are honoured as manifests are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from catalog_builder.synthetic.geotiff import write_geotiff_tile
from tests.convert.making import POLAR, convert_one, sample, write_pair
from tests.convert.test_odd_folders import convert, rows_of

pytestmark = pytest.mark.service


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _source(root: Path) -> tuple[Path, Path]:
    """Write a tile with all its sums; return the ``.npy`` and its ``SHA256``."""
    npy = write_pair(root, sums=True)
    landmask = next(root.rglob(f"{POLAR.name}.tiff"))
    (landmask.parent / "SHA256SUM").write_text(
        f"{_sha256(landmask)}  {landmask.name}\n{'0' * 64}  other.tiff\n"
    )
    return npy, npy.with_name("SHA256")


def test_what_matches_counts_as_checked(tmp_path: Path) -> None:
    npy, _ = _source(tmp_path / "src")
    for source in (tmp_path / "src", npy):
        done = convert(source, "--out", tmp_path / "out", "--workers", "0", "--force")
        assert done.returncode == 0, done.stderr
        (row,) = rows_of(tmp_path / "out").values()
        assert [(s.role, s.verified) for s in row.sources] == [
            ("main", True),
            ("scales", True),
            ("landmask", True),
        ]


@pytest.mark.parametrize("which", [f"{POLAR.name}.npy", f"{POLAR.name}_scales.npy", f"{POLAR.name}.tiff"])
def test_what_does_not_match_is_a_reason(tmp_path: Path, which: str) -> None:
    _source(tmp_path / "src")
    path = next((tmp_path / "src").rglob(which))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    done = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 1
    sums = path.with_name("SHA256SUM" if which.endswith(".tiff") else "SHA256")
    assert f"{path}: SHA-256 is {_sha256(path)}, {sums} says " in done.stderr
    assert not list((tmp_path / "out").rglob("*.tif"))


FORMS: dict[str, Callable[[str, str], str]] = {
    "sha256sum": lambda digest, name: f"{digest}  {name}\n",
    "binary": lambda digest, name: f"{digest} *{name}\r\n",
    "registry": lambda digest, name: f"# made by hand\n\n./{name} {digest.upper()}\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_sums(tmp_path: Path, form: str) -> None:
    npy, sums = _source(tmp_path / "src")
    scales = npy.with_name(f"{POLAR.name}_scales.npy")
    sums.write_text("".join(FORMS[form](_sha256(p), p.name) for p in (npy, scales)))
    row = convert_one(tmp_path / "src", tmp_path / "out").row
    assert [s.verified for s in row.sources] == [True, True, True], row.reason
    sums.write_text("".join(FORMS[form]("1" * 64, p.name) for p in (npy, scales)))
    assert "says 1111" in convert_one(tmp_path / "src", tmp_path / "out").row.reason


@pytest.mark.parametrize(
    ("content", "reason", "verified"),
    [
        ("", "", False),
        (f"{'2' * 64}  another.npy\n", "", False),
        ("hello\n", "", False),
        (
            f"abc  {POLAR.name}.npy\n",
            f"SHA256 line 1: expected '<SHA-256> {POLAR.name}.npy', found 'abc",
            False,
        ),
        (f"{'g' * 64} *{POLAR.name}.npy\n", "SHA256 line 1: expected", False),
    ],
)
def test_sums_that_say_nothing_or_nothing_good(
    tmp_path: Path, content: str, reason: str, verified: bool
) -> None:
    _, sums = _source(tmp_path / "src")
    sums.write_text(content)
    row = convert_one(tmp_path / "src", tmp_path / "out").row
    assert (row.ok, reason in row.reason) == (not reason, True), row.reason
    if row.ok:
        assert [s.verified for s in row.sources] == [verified, verified, True]


def test_sums_that_cannot_be_read(tmp_path: Path) -> None:
    _, sums = _source(tmp_path / "src")
    sums.unlink()
    sums.symlink_to("gone")
    done = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 1
    assert f"{sums}: a link to gone, which is not there" in done.stderr


def test_sums_of_geotiffs_and_of_arrays_in_an_inventory(tmp_path: Path) -> None:
    path = write_geotiff_tile(tmp_path / "tiff", sample())
    path.with_name("SHA256").write_text(f"{'3' * 64}  {path.name}\n")
    assert "says 3333" in convert_one(path, tmp_path / "out").row.reason
    npy, sums = _source(tmp_path / "src")
    root = npy.parents[2]
    listing = tmp_path / "listing.txt"
    listing.write_text("".join(f"{p.relative_to(root)}\n" for p in sorted(npy.parent.glob("*.npy"))))
    options = ["--dataset", "v1", "--source-root", root, "--out", tmp_path / "out", "--workers", "0"]
    assert convert(listing, *options).returncode == 0
    (row,) = (r for r in rows_of(tmp_path / "out").values() if r.dataset == "v1")
    assert [s.verified for s in row.sources][:2] == [True, True]
    np.save(npy, np.load(npy) * 0)
    assert f"{sums} says" in convert(listing, *options, "--force").stderr
