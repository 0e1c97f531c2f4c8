"""The locations of a collection's files, in S3 or elsewhere, and of their mirrors.

The STAC extensions for both are written here, in the parts that
:func:`catalog_builder.item.item.item_template` puts into its assets:
``storage`` says how to reach the store of an ``s3://`` URL, ``alternate-assets``
lists a file's mirrors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from catalog_builder.errors import QueryError
from catalog_builder.item.stored import XARRAY, Store

STORAGE = "https://stac-extensions.github.io/storage/v2.0.0/schema.json"
ALTERNATE = "https://stac-extensions.github.io/alternate-assets/v1.2.0/schema.json"
SIGNED = "signed-s3://"
"""Replaces ``s3://`` in URLs whose hrefs are presigned one by one when the response is sent."""

Mirrors = tuple[tuple[str, str], ...]
"""Names and URLs."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """How to reach a bucket, in terms of the storage extension."""

    name: str
    platform: str
    """Endpoint of the store, with ``{bucket}`` and ``{region}`` as placeholders."""
    region: str = ""
    """Empty if the store has none."""
    requester_pays: bool = False
    anonymous: bool = False
    """Whether anybody may read it without credentials."""

    @property
    def scheme(self) -> dict[str, Any]:
        """The bucket as a storage scheme object."""
        aws = self.platform.endswith(".amazonaws.com")
        return {
            "type": "aws-s3" if aws else "custom-s3",
            "platform": self.platform,
            "bucket": self.name,
            **({"region": self.region} if self.region else {}),
            "requester_pays": self.requester_pays,
            **({"anonymous": True} if self.anonymous else {}),
        }


@dataclass(frozen=True, slots=True)
class Addresses:
    """The locations of a collection's files, as given in its items.

    ``{root}`` in a URL stands for the root URL of the catalogue: the API inserts its own.
    """

    source: str
    """Root of ``<year>/<grid>/<grid>.npy``."""
    landmasks: str
    """Root of ``<grid>.tiff``."""
    lane: str
    """Root of direct access in the API, ``<year>/<grid>/<grid>_f32.vrt``."""
    data: str
    """Root of the COGs listed in the ledger."""
    cogs: bool = False
    """Whether any tile-year is converted; if not, the template omits the converted assets."""
    mirrors: Mirrors = ()
    """Mirrors of ``data``."""
    source_mirrors: Mirrors = ()
    """Mirrors of ``source``."""
    buckets: tuple[Bucket, ...] = ()
    """How to reach the buckets in the URLs."""
    store: Store | None = None
    """The store of arrays that tile-years are windows of, if there is one."""
    is_direct_from_store: bool = False
    """Whether direct access computes the published arrays from the store: there are none to give."""
    views: str = ""
    """Root of the VRTs listed in the ledger, if not ``data``: a VRT refers to files by relative path,
    and does not work at a URL that does not resolve them."""

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Restore from :func:`dataclasses.asdict` output that went through JSON."""
        return cls(
            **{
                **said,
                "mirrors": _mirrors(said.get("mirrors", ())),
                "source_mirrors": _mirrors(said.get("source_mirrors", ())),
                "buckets": tuple(Bucket(**b) for b in said.get("buckets", ())),
                "store": Store.from_json(said["store"]) if said.get("store") else None,
            }
        )

    @property
    def extensions(self) -> list[str]:
        """The additional extensions that items with these URLs declare."""
        alternate = [ALTERNATE] if self.mirrors or self.source_mirrors else []
        xarray = [XARRAY] if self.store is not None else []
        return [*([STORAGE] if self.schemes else []), *alternate, *xarray]

    @property
    def schemes(self) -> dict[str, Any]:
        """The buckets that items refer to, as storage schemes by name."""
        given = [self.source, self.landmasks, *([self.data] if self.cogs else [])]
        used = {_bucket(a) for a in (*given, *([self.store.address] if self.store else []))}
        return {b.name: b.scheme for b in self.buckets if b.name in used}

    def stored(self, address: str) -> dict[str, Any]:
        """Return the asset field that refers to the bucket of a file below a URL; empty if in none."""
        name = _bucket(address)
        return {"storage:refs": [name]} if name in self.schemes else {}


def _mirrors(said: Iterable[Iterable[str]]) -> Mirrors:
    return tuple((name, address) for name, address in said)


def _bucket(address: str) -> str:
    for prefix in ("s3://", SIGNED):
        if address.startswith(prefix):
            return address.removeprefix(prefix).partition("/")[0]
    return ""


def alternate(mirrors: Mirrors, href: Callable[[str], Any]) -> dict[str, Any]:
    """Return the asset field that lists a file's mirrors; empty if there are none.

    Parameters
    ----------
    mirrors
        The mirrors.
    href
        Returns the file's href, as a node of the template, for a root URL.
    """
    places = {name: {"href": href(address), "alternate:name": name} for name, address in mirrors}
    return {"alternate": places} if places else {}


def parse_mirrors(texts: Iterable[str], option: str) -> Mirrors:
    """Parse texts of the form ``NAME=URL``.

    >>> parse_mirrors(["lab=https://data.example.org/cogs/"], "--mirror")
    (('lab', 'https://data.example.org/cogs'),)

    Raises
    ------
    QueryError
        If a text has another form, a URL is not https, http or s3, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, address = text.partition("=")
        if not name.strip() or not address.startswith(("https://", "http://", "s3://")):
            raise QueryError(f"{option}: expected NAME=URL with an https or s3 URL, found '{text}'")
        if name in found:
            raise QueryError(f"{option}: two mirrors have the name '{name}'")
        found[name] = address.rstrip("/")
    return tuple(found.items())
