"""What the gate compares: entries with a digest, what was masked in them, and how differences are shown.

An entry is a file, what a command printed, or a response. Its digest is of the bytes after masking; a text
is kept as well (``bodies.json.xz``), so that a difference can be shown and not only stated.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import lzma
import platform
import re
import sqlite3
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REFERENCE = HERE / "reference.json"
BODIES = HERE / "bodies.json.xz"

_LIBRARIES = (
    "affine", "brotli", "cql2", "fastapi", "h11", "h5netcdf", "h5py", "httptools", "numpy", "orjson",
    "pillow", "pyarrow", "pydantic", "pyproj", "pystac", "rasterio", "rio-cogeo",
    "rio-tiler", "shapely", "stac-fastapi.api", "stac-fastapi.types", "starlette", "titiler.core",
    "uvicorn", "xarray", "zarr", "zstandard",
)  # fmt: skip
"""Those that decide bytes: of files, pictures, JSON, compressed responses, and the frame's own documents."""
_LONGEST_BODY = 200_000
"""Longer texts are compared by their digest only."""
_SHOWN_LINES = 30
_SHOWN_CAUSES = 25
_SHOWN_NAMES = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that must not change."""

    sha256: str
    size: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What is said beside the digest: status and headers of a response, exit code of a command, parts of a
    binary file with a digest each, so that a difference can be located."""
    body: str | None = None
    """The text, where it is one."""

    @classmethod
    def of(cls, content: bytes, facts: Mapping[str, Any] | None = None) -> Entry:
        """Return the entry of some bytes that are masked already."""
        body = None
        if len(content) <= _LONGEST_BODY and b"\0" not in content:
            try:
                body = content.decode()
            except UnicodeDecodeError:
                body = None
        return cls(digest(content), len(content), facts or {}, body)


Entries = dict[str, Entry]
"""By what they are: ``file catalog/catalog.json``, ``command build``, ``GET /search?limit=1``."""


def digest(content: bytes) -> str:
    """Return the SHA-256, in hex."""
    return hashlib.sha256(content).hexdigest()


# ------------------------------------------------------------------------------------------ parts of files


def file_facts(path: Path, content: bytes) -> dict[str, Any]:
    """Return digests of a binary file's parts: which table, column or half of it differs."""
    match path.suffix:
        case ".sqlite":
            return _sqlite_facts(path)
        case ".parquet":
            return _parquet_facts(path)
        case ".tif" | ".tiff":
            # The directories of a COG stand before its pixels.
            return {"first 2 kB": digest(content[:2048])[:16], "rest": digest(content[2048:])[:16]}
    return {}


def _sqlite_facts(path: Path) -> dict[str, Any]:
    db = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        tables = dict(db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall())
        facts = {"schema": digest(repr(tables).encode())[:16]}
        for name in (n for n, sql in tables.items() if sql and sql.startswith("CREATE TABLE")):
            rows = db.execute(f'SELECT * FROM "{name}" ORDER BY 1').fetchall()
            facts[f"table {name}"] = f"{len(rows)} rows {digest(repr(rows).encode())[:16]}"
        return facts
    finally:
        db.close()


def _parquet_facts(path: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path, partitioning=None).combine_chunks()
    facts = {"schema": digest(repr(table.schema.remove_metadata()).encode())[:16], "rows": table.num_rows}
    for key, value in sorted((pq.read_metadata(path).metadata or {}).items()):
        facts[f"metadata {key.decode()}"] = digest(value)[:16]
    for name in table.column_names:
        sink = pa.BufferOutputStream()
        column = table.select([name]).replace_schema_metadata(None)
        with pa.ipc.new_stream(sink, column.schema) as stream:
            stream.write_table(column)
        facts[f"column {name}"] = digest(sink.getvalue().to_pybytes())[:16]
    return facts


# ------------------------------------------------------------------------------------------------- reference


def versions() -> dict[str, str]:
    """Return what decides bytes beside our own code."""
    import rasterio

    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["GDAL"] = rasterio.__gdal_version__
    found["SQLite"] = sqlite3.sqlite_version
    found["zlib"] = zlib.ZLIB_RUNTIME_VERSION
    found["Python"] = ".".join(map(str, sys.version_info[:2]))
    found["machine"] = platform.machine()
    return found


def write_reference(entries: Entries) -> None:
    """Keep entries as the reference."""
    said = {
        "versions": versions(),
        "entries": {
            name: {"sha256": e.sha256, "size": e.size, **({"facts": dict(e.facts)} if e.facts else {})}
            for name, e in sorted(entries.items())
        },
    }
    REFERENCE.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    bodies = {name: e.body for name, e in sorted(entries.items()) if e.body is not None}
    BODIES.write_bytes(lzma.compress(json.dumps(bodies, ensure_ascii=False).encode(), preset=9))


def read_reference() -> tuple[dict[str, str], Entries]:
    """Return the versions that the reference was made with, and its entries."""
    said = json.loads(REFERENCE.read_text())
    bodies = json.loads(lzma.decompress(BODIES.read_bytes()))
    entries = {
        name: Entry(e["sha256"], e["size"], e.get("facts", {}), bodies.get(name))
        for name, e in said["entries"].items()
    }
    return said["versions"], entries


# ----------------------------------------------------------------------------------------------- differences


def differences(before: Entries, now: Entries) -> dict[str, list[str]]:
    """Return, for each entry that is not the same, by its name what differs in it; empty if all are."""
    found: dict[str, list[str]] = {}
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            found[name] = ["it is no longer there"]
        elif name not in before:
            found[name] = ["it is new"]
        elif (old := before[name]) != (new := now[name]):
            found[name] = list(_difference(old, new))
    return found


def _difference(old: Entry, new: Entry) -> Iterator[str]:
    for key in sorted(old.facts.keys() | new.facts.keys()):
        a, b = old.facts.get(key, "(absent)"), new.facts.get(key, "(absent)")
        if a != b:
            yield f"{key}: was {a}, is {b}"
    if old.sha256 == new.sha256:
        return
    if old.body is None or new.body is None:
        was, is_now = (f"{e.size:,} bytes {e.sha256[:16]}" for e in (old, new))
        yield f"content: was {was}, is {is_now}"
        return
    lines = list(difflib.unified_diff(_lines(old.body), _lines(new.body), "was", "is", lineterm="", n=1))
    yield from lines[2:] or ["the same but for white space or the order of JSON's keys"]


def _lines(text: str) -> list[str]:
    """Cut a text into lines to compare: JSON is written out, tags are put on lines of their own."""
    try:
        return json.dumps(json.loads(text), indent=1, ensure_ascii=False).splitlines()
    except ValueError:
        lines = re.sub(r">\s*<", ">\n<", text).splitlines()
        # JSON by lines, and in a script of a page
        return [
            part for x in lines for part in (x.replace(',"', ',\n"').split("\n") if len(x) > 300 else [x])
        ]


def _cause(lines: Sequence[str]) -> frozenset[str]:
    """Return what of a difference says why: equal for all items that lost the same line.

    ETags and the catalogue's generation follow from the content of the index, so they differ in all
    responses once anything in it does; lengths follow from the text.
    """
    said = (x for x in lines if not x.startswith(("@@", " ", "etag:", "content-length:")))
    return frozenset(f"{x[0]}{x[1:].strip()}" for x in said)


def report(made_with: Mapping[str, str], found: Mapping[str, Sequence[str]]) -> str:
    """Return the message of a failure: every cause once, with the first entry that shows it."""
    groups: dict[frozenset[str], list[str]] = {}
    for name, difference in found.items():
        groups.setdefault(_cause(difference), []).append(name)
    follows = groups.pop(frozenset(), [])
    lines = [f"{len(found)} things that users get are not what they were, in {len(groups)} ways:"]
    shown = sorted(groups.values(), key=lambda names: (-len(names), names))
    for names in shown[:_SHOWN_CAUSES]:
        lines += ["", _short(names[0])]
        difference = found[names[0]]
        lines += [f"    {line[:300]}" for line in difference[:_SHOWN_LINES]]
        if len(difference) > _SHOWN_LINES:
            lines.append(f"    ... {len(difference) - _SHOWN_LINES} lines more")
        if len(names) > 1:
            others = ", ".join(_short(name) for name in names[1:_SHOWN_NAMES])
            lines.append(
                f"  the same in {len(names) - 1} more: {others}{', ...' * (len(names) > _SHOWN_NAMES)}"
            )
    lines += ["", *(_short(name) for names in shown[_SHOWN_CAUSES:] for name in names)]
    if follows:
        lines.append(
            f"In {len(follows)} responses only the ETag (of the whole catalogue) differs,"
            f" such as {_short(follows[0])}."
        )
    here = versions()
    other = [
        f"{name} {here.get(name, 'absent')} (reference: {made_with.get(name, 'absent')})"
        for name in sorted(here.keys() | made_with.keys())
        if here.get(name) != made_with.get(name)
    ]
    if other:
        lines.append(
            f"The reference is bound to the locked versions, and these differ: {', '.join(other)}. Libraries"
            " change bytes: compare in an environment of requirements-dev.lock first."
        )
    lines.append("If what users get was meant to change, see tests/unchanged/make.py.")
    return "\n".join(lines)


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:200]}..."
