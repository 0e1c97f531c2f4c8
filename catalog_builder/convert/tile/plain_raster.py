"""GeoTIFFs that are not TESSERA tiles: a COG that holds what they hold, or a reason why there is none.

GDAL's COG driver writes them. It copies samples as they are, whatever their type and whether or not a mask
hides them, with masks, colours, ground control points and rational polynomials; rio-cogeo's own way is a
warp, which resamples, rounds 64-bit integers and blanks what is hidden. Files beside a source that belong to
it (``.aux.xml``, ``.msk``, a world file) are read with it.

A result counts once it has been compared with its source: every pixel of every band, masks, nodata and
georeferencing are equal, or the conversion fails. Metadata that a COG cannot hold is named: in the ledger,
in the COG's tag ``LOST`` of the domain ``TESSERA_STAC``, and on the screen.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from catalog_builder import storage
from catalog_builder.convert.encode.reserved import ROOM, fill_room, room_for
from catalog_builder.convert.encode.tiff import tag_item
from catalog_builder.convert.ledger.encoding import encoding_of
from catalog_builder.convert.ledger.rows import FileRow, LedgerRow, SourceRow
from catalog_builder.convert.plan.job import ConvertOptions, Job
from catalog_builder.convert.tile import raster_facts
from catalog_builder.convert.tile.raster_facts import RasterFacts, TagKey, facts_of
from catalog_builder.convert.tile.source import local_copy
from catalog_builder.convert.tile.staging import publish, staging
from catalog_builder.errors import ChecksumError, ConvertError, StorageError
from catalog_builder.pixels.whole import gdal_reason, open_raster
from catalog_builder.raster.gdal import BESIDE, CONVERTING

if TYPE_CHECKING:
    import rasterio

MANY_BANDS = 16
"""From here on all bands of a block lie side by side, as in tiles, in the blocks that the options ask for.

Pixel interleaving, which is right for a few bands, costs hundreds of megabytes for one pixel."""
FOLDER = "other"
"""Folder of the results below the output: they belong to no dataset."""
_REMOTE_SIDES = (".aux.xml", ".msk")
"""Suffixes of side files that are looked for beside a remote raster: each costs a request."""
_SIDES = (*_REMOTE_SIDES, ".ovr", ".vat.dbf")
_SIDES_OF_STEM = (".aux.xml", ".tfw", ".tifw", ".tiffw", ".wld", ".tab", ".rpb", "_rpc.txt", "_RPC.TXT")
"""What GDAL looks for beside a local raster, behind its name and instead of its suffix."""
_UNWRITABLE = ("EXIF", "COLOR_PROFILE", "IMAGE_STRUCTURE")
"""Domains whose tags GDAL takes from elsewhere than its own metadata tag."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that is open, with what belongs to it."""

    ds: rasterio.DatasetReader
    facts: RasterFacts
    address: str
    beside: tuple[str, ...]
    """What its side files hold and no COG can."""
    unknown: tuple[str, ...]
    """Why it is not known whether there are more."""


@dataclass(frozen=True, slots=True)
class Written:
    """A COG that was written and compared."""

    header_size: int
    lost: tuple[str, ...]
    """Metadata of the source that it lacks."""
    warnings: tuple[str, ...]
    """Of rio-cogeo's strict validation."""


def convert_raster(job: Job, options: ConvertOptions, base: LedgerRow) -> LedgerRow:
    """Convert a GeoTIFF that is not a tile; its row has no tile and no dataset.

    Raises
    ------
    ConvertError
        If it cannot be converted, or the result is not what the source is.
    """
    rows: list[SourceRow] = []
    with staging(options) as folder, opened(job, rows) as source:
        ds = source.ds
        _require_one_placed_raster(source)
        method = "nearest" if options.overviews == "nearest" or _has_no_mean(ds) else "average"
        target = folder / "embeddings"
        written = _write(source, target, _creation_options(ds, options, method))
        if options.durable:
            with target.open("rb") as stream:
                os.fsync(stream.fileno())
        sha, size = _hash(target)
        stored = encoding_of(target)
        stem = re.sub(r"[^\w.~-]", "_", Path(job.main.address).stem)
        epsg = raster_facts.epsg_of(ds.crs)
        row = replace(
            base,
            status="ok",
            dataset="",
            options=options.digest_for(""),
            profile="raster",
            lossless=_compared(source.facts, written),
            lost=written.lost,
            note="; ".join((*_notes(written), *source.unknown)),
            content=sha[:8],
            embeddings=FileRow(f"{FOLDER}/{stem}_{sha[:8]}.tif", size, sha, written.header_size),
            sources=tuple(rows),
            dtype=ds.dtypes[0],
            bands=ds.count,
            interleave=stored.interleave,
            predictor=stored.predictor,
            epsg=epsg,
            wkt2="" if epsg is not None else raster_facts.wkt2_of(ds.crs),
            transform=source.facts.transform,
            height=ds.height,
            width=ds.width,
            overviews=method,
            verified=True,
        )
        publish(folder, row, options)
    return row


def compare_again(job: Job, row: LedgerRow, path: Path) -> list[str]:
    """Return how a COG differs from its source, beyond the metadata that its row says is lost.

    Raises
    ------
    StorageError
        If the source is gone, or another now.
    """
    rows: list[SourceRow] = []
    with opened(job, rows) as source:
        if {(r.role, r.sha256) for r in rows} != {(r.role, r.sha256) for r in row.sources}:
            raise ChecksumError(f"{job.main.address}: the files beside it changed since the conversion")
        try:
            found = _compare(source, path)
        except ConvertError as error:
            return [str(error)]
    unsaid = [name for name in found if name not in row.lost]
    return [f"{job.main.address}: lost, and the ledger does not say so: {name}" for name in unsaid]


# --- sources ----------------------------------------------------------------------------------------


@contextmanager
def opened(job: Job, rows: list[SourceRow]) -> Iterator[Opened]:
    """Open a source together with the files beside it, and note all of them."""
    import rasterio

    with (
        warnings.catch_warnings(),
        local_copy(job.main, "main", rows) as path,
        # Which files are beside it is asked by name: listing a folder of a million rasters takes long.
        rasterio.Env(**BESIDE),
    ):
        # What they say is judged here: what is not georeferenced is refused, what differs is named.
        warnings.simplefilter("ignore")
        unknown = _fetch_beside(job.main.address, path) if storage.scheme(job.main.address) else ()
        if not storage.scheme(job.main.address):
            _require_files_beside(path)
        with open_raster(path, job.main.address) as ds:
            beside = [Path(name) for name in ds.files if Path(name) != path and not name.endswith(".ovr")]
            for file in beside:
                sha, size = _hash(file)
                suffix = file.name.removeprefix(path.name).removeprefix(path.stem)
                whole = file.name.startswith(path.name)
                stem = job.main.address if whole else job.main.address.removesuffix(path.suffix)
                address = f"{stem}{suffix}" if storage.scheme(job.main.address) else str(file)
                rows.append(SourceRow("side", address, size, sha, verified=False))
            found = raster_facts.lost_side_files([*beside, *_tables(path)])
            yield Opened(ds, facts_of(ds), job.main.address, tuple(found), tuple(unknown))


def _require_files_beside(path: Path) -> None:
    """Reject side files of a local raster that are no files: GDAL would wait for what a pipe says."""
    names = [path.name + suffix for suffix in _SIDES] + [path.stem + suffix for suffix in _SIDES_OF_STEM]
    for side in map(path.with_name, names):
        why = storage.local.oddity(side)
        if why and os.path.lexists(side):
            raise ConvertError(f"{side}: {why}")


def _fetch_beside(address: str, path: Path) -> list[str]:
    """Fetch the side files of a remote raster that are there, and return why of others nothing is known."""
    if "?" in address:
        return ["files beside a signed URL are not looked for"]
    unknown = []
    for suffix in _REMOTE_SIDES:
        try:
            if storage.exists(address + suffix):
                storage.fetch_to(address + suffix, path.with_name(path.name + suffix))
        except StorageError as error:  # many stores deny what is not there
            unknown.append(f"whether {suffix} lies beside it is not known: {error}")
    return unknown


def _tables(path: Path) -> list[Path]:
    """Return the attribute table beside a raster, which GDAL does not list."""
    table = path.with_name(f"{path.name}.vat.dbf")
    return [table] if table.exists() else []


def _require_one_placed_raster(source: Opened) -> None:
    ds, facts = source.ds, source.facts
    if ds.subdatasets:
        raise ConvertError(
            f"{source.address}: holds {len(ds.subdatasets)} images, a COG has one: take them out first, each"
            " into a file of its own (gdal_translate GTIFF_DIR:1:…)"
        )
    placed = facts.crs is not None or not ds.transform.is_identity or facts.gcps or facts.rpcs
    if not placed:
        raise ConvertError(
            f"{source.address}: not georeferenced: neither it nor a file beside it has a CRS, a transform,"
            " ground control points or RPCs"
        )


# --- writing ----------------------------------------------------------------------------------------


def _has_no_mean(ds: rasterio.DatasetReader) -> bool:
    """Whether values are names: palettes, classes, identifiers of 64 bits; or pairs, which no mean suits."""
    from rasterio.enums import ColorInterp

    dtype = ds.dtypes[0]
    return (
        ds.colorinterp[0] == ColorInterp.palette
        or dtype.startswith("complex")
        or dtype in ("int64", "uint64")
        or (ds.count == 1 and dtype in ("uint8", "int8"))
    )


def _creation_options(ds: rasterio.DatasetReader, options: ConvertOptions, method: str) -> dict[str, str]:
    """Return how GDAL's COG driver is to write: as tiles are if bands are many, else as most people do."""
    many = ds.count >= MANY_BANDS
    own = 1 if many and options.interleave != "pixel" else _own_predictor(ds)
    predictor = options.predictor if many and options.predictor is not None else own
    found = {
        "COMPRESS": options.compression.upper(),
        "PREDICTOR": {1: "NO", 2: "STANDARD", 3: "FLOATING_POINT"}[predictor],
        "BLOCKSIZE": str(options.block_size if many else 512 if max(ds.shape) > 512 else 256),
        "INTERLEAVE": options.interleave.upper() if many else "PIXEL",
        "OVERVIEWS": "IGNORE_EXISTING",
        "OVERVIEW_RESAMPLING": method.upper(),
        "BIGTIFF": "IF_SAFER",
    }
    if options.compression == "none":
        found |= {"PREDICTOR": "NO"}
    else:
        found |= {"LEVEL": str(options.level if many else 9)}
    # A raster of one column or a few has no more levels than its columns can be halved.
    wanted = ((max(ds.shape) - 1) // int(found["BLOCKSIZE"])).bit_length()
    levels = min(wanted, ds.width.bit_length() - 1)
    return found | ({"OVERVIEW_COUNT": str(levels)} if levels else {"OVERVIEWS": "NONE"})


def _own_predictor(ds: rasterio.DatasetReader) -> int:
    """Return the predictor of a type of samples; none where libtiff has none, or not all readers do."""
    dtype, bits = ds.dtypes[0], ds.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
    if bits is not None or dtype == "float16" or dtype.startswith("complex"):
        return 1
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return 3
    return 2 if kind.itemsize <= 4 else 1


def _write(source: Opened, target: Path, options: dict[str, str]) -> Written:
    """Write a COG and compare it; if it lacks tags, write it again with room for them and for their names."""
    ds = source.ds
    before = target.with_name("before.tif")
    if options["INTERLEAVE"] == "PIXEL":
        _copy(ds, target, options)
    else:
        # The driver makes overviews by pixel, band by band: it would encode the blocks of all bands for each.
        _copy(ds, before, _plain(options))
        options = options | _build_overviews(before, options)
        _copy(before, target, options)
    add: dict[TagKey, str] = {}
    names: list[str] = []
    for _ in range(3):
        header_size = _header_size(target)
        if add or names:
            with target.open("r+b") as stream:
                fill_room(stream, _items(add, names), header_size)
        found = _compare_facts(source, target)
        if found == names:
            _compare(source, target)
            return Written(header_size, tuple(found), _validate(source, target))
        missing = raster_facts.lost_tags(source.facts, _facts_at(target))
        add = {k: v for k, v in (add | missing).items() if _can_add(k) and not (k in add and k in missing)}
        names = [name for name in found if name not in {raster_facts.tag_name(k, v) for k, v in add.items()}]
        if not before.exists():
            _copy(ds, before, _plain(options))
        _reserve(before, _items(add, names))
        target.unlink()
        _copy(before, target, options)
    raise ConvertError(f"{source.address}: the COG does not keep its tags: {'; '.join(found)}")


def _plain(options: Mapping[str, str]) -> dict[str, str]:
    """Return options of a file between source and COG, which is written and read once."""
    return {"COMPRESS": "NONE", "OVERVIEWS": "NONE", "BIGTIFF": "IF_SAFER"} | {
        name: options[name] for name in ("INTERLEAVE", "BLOCKSIZE")
    }


def _copy(source: rasterio.DatasetReader | Path, target: Path, options: Mapping[str, str]) -> None:
    import rasterio
    from rasterio import shutil

    try:
        shutil.copy(source, target, driver="COG", **options)
    except rasterio.errors.RasterioError as error:
        raise ConvertError(f"{getattr(source, 'name', source)}: {gdal_reason(error)}") from None
    except Exception as error:  # GDAL's own errors are of a private class
        if not type(error).__name__.startswith("CPLE_"):
            raise
        raise ConvertError(f"{getattr(source, 'name', source)}: {gdal_reason(error)}") from None


def _build_overviews(path: Path, options: Mapping[str, str]) -> dict[str, str]:
    """Build the overviews in a planar file, and return the options that copy them."""
    import rasterio
    from rasterio.enums import Resampling

    if options["OVERVIEWS"] == "NONE":
        return {}
    levels = [2 << level for level in range(int(options["OVERVIEW_COUNT"]))]
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as ds:
        ds.build_overviews(levels, Resampling[options["OVERVIEW_RESAMPLING"].lower()])
    return {"OVERVIEWS": "FORCE_USE_EXISTING"}


def _can_add(key: TagKey) -> bool:
    return key[1] not in _UNWRITABLE and ":" not in key[1]


def _items(add: Mapping[TagKey, str], names: list[str]) -> list[str]:
    items = [tag_item(*key, value) for key, value in add.items()]
    return items + ([tag_item(0, raster_facts.OURS, "LOST", "; ".join(names))] if names else [])


def _reserve(path: Path, items: list[str]) -> None:
    import rasterio

    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as ds:
        ds.update_tags(**{ROOM: room_for(items)})


# --- comparing --------------------------------------------------------------------------------------


def _facts_at(path: Path) -> RasterFacts:
    import rasterio

    # Without the files beside it: what counts is what the COG holds.
    with rasterio.Env(**CONVERTING), rasterio.open(path, driver="GTiff") as result:
        return facts_of(result)


def _compare_facts(source: Opened, path: Path) -> list[str]:
    """Return what metadata a COG lacks.

    Raises
    ------
    ConvertError
        If it is not the source.
    """
    result = _facts_at(path)
    differences = raster_facts.essential_differences(source.facts, result)
    if differences:
        raise ConvertError(f"{source.address}: no COG of it: {'; '.join(differences)}")
    return raster_facts.lost(source.facts, result) + list(source.beside)


def _compare(source: Opened, path: Path) -> list[str]:
    """Do the same, and compare all pixels."""
    import rasterio

    found = _compare_facts(source, path)
    with rasterio.Env(**CONVERTING), rasterio.open(path, driver="GTiff") as result:
        raster_facts.compare_pixels(source.ds, result, source.address)
    return found


def _validate(source: Opened, path: Path) -> tuple[str, ...]:
    from rio_cogeo.cogeo import cog_validate

    _, errors, warned = cog_validate(path, strict=True, quiet=True)
    if errors:
        raise ConvertError(f"{source.address}: rio-cogeo finds no COG: {'; '.join(errors)}")
    return tuple(warned)


def _compared(source: RasterFacts, written: Written) -> tuple[str, ...]:
    """Return what was compared and is equal."""
    lost_tags = any(name not in source.described for name in written.lost)
    described = [what for what in source.described if what not in written.lost]
    return (*raster_facts.ESSENTIAL, *described, *(() if lost_tags else ("tags",)))


def _notes(written: Written) -> Iterator[str]:
    if written.lost:
        yield f"not kept: {', '.join(written.lost)}"
    yield from (f"rio-cogeo: {text}" for text in written.warnings)


def _header_size(path: Path) -> int:
    """Return where the first block of a COG begins: the smallest offset in its directories."""
    import rasterio

    with rasterio.open(path) as ds:
        text = ds.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1)
        offsets = [int(text)] if text else []
        for level in range(len(ds.overviews(1))):
            at = ds.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, ovr=level)
            offsets += [int(at)] if at else []
    return min(offsets, default=0)


def _hash(path: Path) -> tuple[str, int]:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size
