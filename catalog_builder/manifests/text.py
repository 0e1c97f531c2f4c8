"""Text registries: lines of a path and a SHA-256, in either order.

One reader handles every generation, because the lines never changed (geotessera 0.1.0 to 0.6):
``registry_2024.txt``, the 5 degree blocks ``embeddings_2024_lon5_lat50.txt`` and
``landmasks_lon5_lat50.txt`` (earlier ``registry_…`` and ``registry_tiles_…``), and on the server
``SHA256`` in a tile's folder and ``SHA256SUM`` beside the landmasks, which have the hash first.

A chunk of regular lines is split in one go; only a chunk with an irregularity is examined
line by line.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from catalog_builder.manifests.part import UNKNOWN, BoolArray, Hashes, ManifestPart
from catalog_builder.manifests.paths.files import Files, IndexArray, Pairer, landmasks_of
from catalog_builder.manifests.paths.names import FileKind, flaw, parse_paths
from catalog_builder.manifests.problems import ProblemKind
from catalog_builder.manifests.reading import Reading, text_chunks
from catalog_builder.tile.grid import TileId, rows_cols

_BLOCK = re.compile(
    r"(?:(?:embeddings|registry)_(?P<year>\d{4})|landmasks|registry_tiles)"
    r"(?:_lon(?P<lon>-?\d+)_lat(?P<lat>-?\d+))?\.txt(?:\.\w+)?"
)
_MASTER = re.compile(r"(?:\S*/)?(?:embeddings|landmasks|registry)_\S+\.txt")
_HEX = re.compile(rb"[0-9a-fA-F]{64}")
_SUFFIXES = (".npy", ".tiff", ".tif")
_HASH_LIKE = re.compile(r"[0-9a-fA-F]{16,}")
_FOLDER = re.compile(r"(?:^|/)(\d{4}/grid_[^/]+)/SHA256$")

EXPECTED = "expected '<path> <sha256>'"


@dataclass(frozen=True, slots=True)
class _Promise:
    """What a registry's file name promises about its lines."""

    year: int | None = None
    lon: int | None = None
    """West edge of its block in degrees."""
    lat: int | None = None
    """South edge of its block."""

    @classmethod
    def of(cls, source: str) -> _Promise:
        match = _BLOCK.fullmatch(source.replace("!", "/").rpartition("/")[2])
        if match is None:
            return cls()
        return cls(*(int(v) if v is not None else None for v in match.group("year", "lon", "lat")))


def read_sums(content: bytes) -> tuple[dict[str, str], list[tuple[int, str]]]:
    r"""Read a ``SHA256`` or ``SHA256SUM`` file, as ``sha256sum`` writes it, or with the hash second.

    Returns
    -------
    sums, others
        The SHA-256 of each file, lower-case hex, by its name without folders; and the lines that are no such
        pair, with their numbers.

    >>> read_sums(b"%s *./a.npy\na.txt\n" % (b"0A" * 32)) == ({"a.npy": "0a" * 32}, [(2, "a.txt")])
    True
    """
    sums: dict[str, str] = {}
    others: list[tuple[int, str]] = []
    for number, line in enumerate(content.splitlines(), 1):
        words = line.split(None, 1)
        if not words or line.startswith(b"#"):
            continue
        first, rest = words[0], words[1].strip() if len(words) > 1 else b""
        if not _HEX.fullmatch(first):
            first, rest = rest, first
        if not rest or not _HEX.fullmatch(first):
            others.append((number, line.decode("utf-8", "replace").strip()))
            continue
        name = rest.decode("utf-8", "replace").removeprefix("*").rpartition("/")[2]
        sums[name] = first.decode().lower()
    return sums, others


def has_registry_name(source: str) -> bool:
    """Return whether a file is named like a registry."""
    name = source.replace("!", "/").rpartition("/")[2]
    return name in ("SHA256", "SHA256SUM") or _BLOCK.fullmatch(name) is not None


def is_registry_line(words: list[str]) -> bool:
    """Return whether a line has a tile's file and something that may be its hash."""
    if len(words) != 2:
        return False
    path, other = words if words[0].endswith(_SUFFIXES) else words[::-1]
    return path.endswith(_SUFFIXES) and _HASH_LIKE.fullmatch(other) is not None


def is_master_line(words: list[str]) -> bool:
    """Return whether a line is one of a master ``registry.txt``: a block's file name, maybe its hash."""
    return 1 <= len(words) <= 2 and _MASTER.fullmatch(words[0]) is not None


def read_master(file: BinaryIO, reading: Reading) -> Iterator[tuple[str, str | None]]:
    """Yield the block files that a master registry names, with their SHA-256 if given."""
    for _, chunk in text_chunks(file, reading):
        for line in chunk.decode("utf-8", "replace").splitlines():
            words = line.split()
            if words and not line.startswith("#") and is_master_line(words):
                yield words[0], words[1].lower() if len(words) == 2 else None


def read_text(file: BinaryIO, reading: Reading) -> Iterator[ManifestPart]:
    """Read one text registry.

    Parameters
    ----------
    file
        Decompressed bytes.
    """
    promise = _Promise.of(reading.source)
    # lines of a tile's own SHA256 file contain only file names; the folder identifies the tile
    folder = _FOLDER.search(reading.source.replace("!", "/"))
    pairers: dict[str, Pairer] = {}
    for first_line, chunk in text_chunks(file, reading):
        paths, hashes, lines = _split(chunk, first_line, reading)
        if not paths:
            continue
        if folder:
            paths = [b"%s/%s" % (folder[1].encode(), p.rpartition(b"/")[2]) for p in paths]
        yield from _parts(paths, hashes, lines, promise, reading, pairers)
    for pairer in pairers.values():
        pairer.finish()


def _split(chunk: bytes, first_line: int, reading: Reading) -> tuple[list[bytes], list[bytes], IndexArray]:
    """Split a chunk of complete lines into paths and hex digests (empty if invalid), and line numbers."""
    words = chunk.split()
    n_lines = chunk.count(b"\n")
    if len(words) == 2 * n_lines and chunk.isascii() and not words[0].startswith(b"#"):
        hash_first = len(words[0]) == 64 and b"." not in words[0]
        paths, hashes = (words[1::2], words[0::2]) if hash_first else (words[0::2], words[1::2])
        # a hash has 64 characters; if a line lacked a word, paths would appear among the hashes
        if set(map(len, hashes)) == {64}:
            if hash_first:  # sha256sum marks binary files with an asterisk
                paths = [p.removeprefix(b"*") for p in paths]
            return paths, hashes, np.arange(n_lines) + first_line
    return _split_slowly(chunk, first_line, reading)


def _split_slowly(
    chunk: bytes, first_line: int, reading: Reading
) -> tuple[list[bytes], list[bytes], IndexArray]:
    paths: list[bytes] = []
    hashes: list[bytes] = []
    numbers: list[int] = []
    for number, line in enumerate(chunk.split(b"\n"), first_line):
        words = line.split()
        if not words or words[0].startswith(b"#"):
            continue
        place = f"line {number}"
        try:
            shown = line.decode().strip()
        except UnicodeDecodeError as error:
            reading.problems.add(
                ProblemKind.ENCODING, reading.source, f"{error.reason}, {EXPECTED}", place=place
            )
            continue
        if len(words) == 2 and _HEX.fullmatch(words[0]):
            words = [words[1].removeprefix(b"*"), words[0]]
        if len(words) != 2 or not words[0].endswith((b".npy", b".tiff", b".tif")):
            if not is_master_line(shown.split()):
                found = shown if len(shown) <= 120 else f"{shown[:117]}..."
                reading.problems.add(
                    ProblemKind.MALFORMED, reading.source, f"{EXPECTED}, found '{found}'", place=place
                )
            continue
        paths.append(words[0])
        hashes.append(words[1])
        numbers.append(number)
    return paths, hashes, np.array(numbers, dtype=np.int64)


def _digests(hashes: list[bytes], lines: IndexArray, reading: Reading) -> tuple[Hashes, BoolArray]:
    """Return SHA-256 digests, shape (n, 32), and the mask of valid ones; report the others."""
    good = np.ones(len(hashes), dtype=np.bool_)
    try:
        raw = binascii.unhexlify(b"".join(hashes))
    except binascii.Error:
        raw = b""
    if len(raw) != 32 * len(hashes) or set(map(len, hashes)) != {64}:
        for i, text in enumerate(hashes):
            if not _HEX.fullmatch(text):
                good[i] = False
                reading.problems.add(
                    ProblemKind.BAD_HASH,
                    reading.source,
                    f"expected 64 hexadecimal digits, found '{text[:80].decode('ascii', 'replace')}'",
                    place=f"line {lines[i]}",
                )
        raw = binascii.unhexlify(b"".join(h if ok else b"0" * 64 for h, ok in zip(hashes, good, strict=True)))
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 32), good


def _parts(
    paths: list[bytes],
    hashes: list[bytes],
    lines: IndexArray,
    promise: _Promise,
    reading: Reading,
    pairers: dict[str, Pairer],
) -> Iterator[ManifestPart]:
    strings = pa.array(paths, pa.string())
    names = parse_paths(strings)
    sha256, hashed = _digests(hashes, lines, reading)
    n = len(paths)
    unknown = np.full(n, UNKNOWN, dtype=np.int64)
    files = Files(names.kind, names.year, names.cell, unknown, unknown, sha256, hashed, lines)

    bad = np.isin(names.kind, (FileKind.OTHER, FileKind.GEOTIFF))
    for i in np.flatnonzero(bad).tolist():
        text = paths[i].decode()
        kind, why = flaw(text) or (ProblemKind.MALFORMED, f"{EXPECTED} of a tile's file, found '{text}'")
        reading.problems.add(kind, reading.source, why, place=f"line {lines[i]}")
    keep = ~bad
    keep &= _kept_promise(files, promise, keep, reading)
    is_tile = names.kind != FileKind.LANDMASK
    wanted = reading.selection.keeps(*files.centres())
    if wanted is not None:
        keep &= wanted
    if reading.selection.years is not None:
        keep &= ~is_tile | np.isin(names.year, sorted(reading.selection.years))

    codes = names.prefix.indices.to_numpy()
    for code, prefix in enumerate(names.prefix.dictionary.to_pylist()):
        mine = keep if len(names.prefix.dictionary) == 1 else keep & (codes == code)
        if reading.leaves_out(prefix):
            continue
        dataset = reading.dataset_of_path(prefix)
        tiles = mine & is_tile
        if tiles.any():
            pairer = pairers.setdefault(prefix, Pairer(reading.source, reading.problems))
            table = pairer.add(files if tiles.all() else files.take(tiles))
            if table is not None:
                yield ManifestPart(reading.source, dataset, tiles=table)
        masks = mine & ~is_tile
        if masks.any():
            table = landmasks_of(files.take(masks), reading.source, reading.problems)
            yield ManifestPart(reading.source, dataset, landmasks=table)


def _kept_promise(files: Files, promise: _Promise, valid: BoolArray, reading: Reading) -> BoolArray:
    """Return the mask of files in the year and block of the registry's name; report the others."""
    is_tile = files.kind != FileKind.LANDMASK
    first, last = reading.years
    wrong_year = valid & is_tile & ((files.year < first) | (files.year > last))
    why = f"expected a year from {first} to {last}"
    if promise.year is not None:
        wrong_year = valid & is_tile & (files.year != promise.year)
        why = f"expected {promise.year}, the year of the file"
    outside = np.zeros(len(files), dtype=np.bool_)
    if promise.lon is not None and promise.lat is not None:
        row, col = rows_cols(files.cell)
        # blocks are named by their lower left corner and 5 degrees, 50 tiles, wide
        outside = valid & ~wrong_year & (
            (row // 50 * 5 - 90 != promise.lat) | (col // 50 * 5 - 180 != promise.lon)
        )  # fmt: skip
    for kind, mask in ((ProblemKind.WRONG_YEAR, wrong_year), (ProblemKind.OUTSIDE_BLOCK, outside)):

        def describe(i: int, kind: ProblemKind = kind) -> tuple[str, str]:
            found = f"{why}, found {files.year[i]}"
            if kind is ProblemKind.OUTSIDE_BLOCK:
                tile = TileId.from_cell(int(files.cell[i]))
                found = (
                    f"the file is the block of longitude {promise.lon}, latitude {promise.lat}; the tile "
                    f"is at {tile.lon}, {tile.lat}"
                )
            return f"line {files.line[i]}", found

        rows = np.flatnonzero(mask)
        reading.problems.add_rows(kind, reading.source, rows, len(rows), describe)
    kept: BoolArray = ~(wrong_year | outside)
    return kept
