"""Rows of the ledger: one attempt at one job."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Literal, Self

import orjson

from catalog_builder.raster.vrt import VIEW_FORM
from catalog_builder.tile.files import ROLES
from catalog_builder.tile.grid import TileId

SUFFIX = ".jsonl"
"""Of the names of a ledger's files."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file that a conversion wrote."""

    path: str
    """Path relative to the output folder."""
    size: int
    sha256: str
    """Lower-case hex."""
    header_size: int = 0
    """Bytes before the first block of a COG; 0 for other files."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One file that a conversion read, or the window of a store: then of its codes and scales, decoded."""

    role: Literal["main", "scales", "landmask", "side"]
    """``side``: a file that belongs to the raster beside it, such as ``.aux.xml`` or ``.msk``."""
    address: str
    size: int
    sha256: str
    verified: bool
    """Whether a manifest states the SHA-256 and it matches."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One attempt at one job. Numbers that do not apply are None."""

    job: str
    """:attr:`~catalog_builder.convert.plan.job.Job.id`."""
    status: Literal["ok", "failed"]
    reason: str = ""
    """Why it failed, in one line."""
    dataset: str = ""
    """Directory name of the dataset; empty for a raster that is not a TESSERA tile."""
    lat_i: int | None = None
    """Tile centre x 100."""
    lon_i: int | None = None
    year: int | None = None
    kind: str = ""
    """``npy``, ``geotiff`` or ``store``: the kind of source."""
    profile: str = ""
    """``native`` (codes and scales), ``float32``, or ``raster`` (not a tile)."""
    grid: str = ""
    """``utm`` or ``source``."""
    lossless: bool | tuple[str, ...] = False
    """Of a tile: whether every valid source value can be read back bit for bit. Of a raster: what was
    compared with the source and is equal, pixels bit by bit; see
    :data:`~catalog_builder.convert.tile.raster_facts.ESSENTIAL`."""
    lost: tuple[str, ...] = ()
    """Metadata of a raster that its COG lacks, each by name."""
    note: str = ""
    """Anomalies: why codes could not be recovered, garbage scales, codes of -128."""
    content: str = ""
    """8 hex digits of embeddings, scales and views together: part of their names."""
    visual_content: str = ""
    """8 hex digits of visual and thumbnail: part of their names."""
    embeddings: FileRow | None = None
    scales: FileRow | None = None
    gain: FileRow | None = None
    """What the float32 view for windows multiplies by: the scales, by a VRT."""
    vrt: FileRow | None = None
    """The float32 view."""
    window: FileRow | None = None
    """The float32 view for windows."""
    visual: FileRow | None = None
    thumbnail: FileRow | None = None
    sources: tuple[SourceRow, ...] = ()
    fingerprint: str = ""
    """Fingerprint of the job's sources when it was planned."""
    options: str = ""
    """Digest of the options."""
    pixel_options: str = ""
    """Digest of the options but the colours; empty in earlier versions' rows."""
    valid_fraction: float | None = None
    """Pixels with data among all pixels."""
    land_fraction: float | None = None
    """Land pixels among all pixels; None without a landmask."""
    minimum: float | None = None
    """Smallest dequantised value of a pixel that counts in statistics."""
    maximum: float | None = None
    statistics: str = ""
    """:func:`encode_statistics` of float32 (4, bands), rows as :data:`~catalog_builder.item.item.STATISTICS`;
    empty if no pixel is valid."""
    code_range: str = ""
    """:func:`~catalog_builder.item.statistics.encode_code_range` of int8 (2, bands), minimum and maximum of
    each band's codes over pixels with data; empty if there are no codes or no such pixel, and in earlier
    versions' rows."""
    dtype: str = ""
    bands: int | None = None
    interleave: str = ""
    """``tile``, ``band`` or ``pixel``: order of the embeddings' samples; empty in earlier versions' rows."""
    predictor: int | None = None
    """TIFF tag 317 of the embeddings, 1 is none; None in earlier versions' rows."""
    view: int | None = None
    """:data:`~catalog_builder.raster.vrt.VIEW_FORM` of the float32 views; None in earlier versions' rows."""
    only: Literal["", "view", "visual", "statistics"] = ""
    """``view``: this attempt wrote the float32 views alone, ``visual``: the false colours and the thumbnail,
    from the COGs, ``statistics``: it wrote no file, and read the statistics of the codes from the COG;
    everything else is said of the attempt before."""
    epsg: int | None = None
    """Code whose definition equals the CRS; None if no code does."""
    wkt2: str = ""
    """The CRS of a raster that has no code, as WKT2:2019."""
    transform: tuple[float, ...] = ()
    """Six affine coefficients (a, b, c, d, e, f)."""
    height: int | None = None
    width: int | None = None
    overviews: str = ""
    """``average`` or ``nearest``."""
    levels: int | None = None
    """Overviews of the embeddings."""
    verified: bool = False
    """Whether the files were reopened and every pixel compared with the source."""
    versions: tuple[tuple[str, str], ...] = ()
    """Name and version of tessera-stac, GDAL, rasterio and numpy."""
    finished: str = ""
    """RFC 3339, UTC."""
    seconds: float = 0.0
    """Duration in its worker, in seconds."""

    @property
    def ok(self) -> bool:
        """Whether the conversion succeeded."""
        return self.status == "ok"

    @property
    def tile(self) -> TileId | None:
        """The tile, if it is one."""
        if self.lat_i is None or self.lon_i is None:
            return None
        return TileId(lat_i=self.lat_i, lon_i=self.lon_i)

    @property
    def has_earlier_view(self) -> bool:
        """Whether the float32 views are of an earlier form: read wrongly by some GDAL, or one missing."""
        return self.ok and self.vrt is not None and self.view != VIEW_FORM

    @property
    def lacks_code_range(self) -> bool:
        """Whether it has codes of pixels with data, and no statistics of them: made by an earlier version."""
        # Of a tile's pixels, one is more than a millionth: a fraction of 0 is none.
        return self.ok and self.profile == "native" and bool(self.valid_fraction) and not self.code_range

    @property
    def files(self) -> dict[str, FileRow]:
        """The files that were written, by role."""
        found = {role: getattr(self, role) for role in ROLES}
        return {role: file for role, file in found.items() if file is not None}

    @property
    def bytes_in(self) -> int:
        """Bytes read."""
        if self.only in ("statistics", "visual"):
            return sum(f.size for f in (self.embeddings, self.scales) if f is not None)
        return 0 if self.only else sum(s.size for s in self.sources)

    @property
    def bytes_out(self) -> int:
        """Bytes written."""
        if self.only:
            views, pictures = (self.gain, self.vrt, self.window), (self.visual, self.thumbnail)
            written = {"view": views, "visual": pictures}.get(self.only, ())
            return sum(file.size for file in written if file)
        return sum(f.size for f in self.files.values())

    def to_json(self) -> bytes:
        """Serialise to one line, without empty fields."""
        said = {k: v for k, v in asdict(self).items() if v not in (None, "", (), {})}
        return orjson.dumps(said)

    @classmethod
    def from_json(cls, line: bytes | str) -> Self:
        """Read what :meth:`to_json` wrote; fields of a later version are ignored.

        Raises
        ------
        ValueError
            If it is not a ledger row.
        """
        said = orjson.loads(line)
        if not isinstance(said, dict) or "job" not in said or "status" not in said:
            raise ValueError("not a ledger row")
        known = {name: said[name] for name in _FIELDS if name in said}
        for role in ROLES:
            if role in known:
                known[role] = FileRow(**known[role])
        known["sources"] = tuple(SourceRow(**s) for s in known.get("sources", ()))
        if isinstance(known.get("lossless"), list):
            known["lossless"] = tuple(known["lossless"])
        known["lost"] = tuple(known.get("lost", ()))
        known["transform"] = tuple(known.get("transform", ()))
        known["versions"] = tuple((n, v) for n, v in known.get("versions", ()))
        return cls(**known)


_FIELDS = frozenset(f.name for f in fields(LedgerRow))


def now() -> str:
    """Return the time in UTC, RFC 3339, to the millisecond."""
    return said(datetime.now(UTC))


def said(time: datetime) -> str:
    """Return a time in UTC as :attr:`LedgerRow.finished` has it."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
