"""Where a collection's files are: at one place, in S3 or not, and at others that hold the same.

The STAC extensions for both are written here, in the parts that
:func:`catalog_builder.item.item.item_template` puts into its assets:
``storage`` says of an ``s3://`` address how to reach its store, ``alternate-assets``
lists a file's other places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from catalog_builder.errors import QueryError

STORAGE = "https://stac-extensions.github.io/storage/v2.0.0/schema.json"
ALTERNATE = "https://stac-extensions.github.io/alternate-assets/v1.2.0/schema.json"
SIGNED = "signed-s3://"
"""Instead of ``s3://`` in an address whose hrefs are to be signed, one by one, when they are answered."""

Mirrors = tuple[tuple[str, str], ...]
"""Names and addresses."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """How to reach a bucket, as the storage extension says it."""

    name: str
    platform: str
    """Address of the store, ``{bucket}`` and ``{region}`` as placeholders."""
    region: str = ""
    """Empty if the store has none."""
    requester_pays: bool = False

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
        }


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a collection's files are, as its items say it.

    ``{root}`` in an address stands for the address of the catalogue itself: the API puts its own.
    """

    source: str
    """Below it lie ``<year>/<grid>/<grid>.npy``."""
    landmasks: str
    """Below it lie ``<grid>.tiff``."""
    lane: str
    """Below it the API answers the raw lane, ``<year>/<grid>/<grid>_f32.vrt``."""
    data: str
    """Below it lie the COGs that the ledger names."""
    cogs: bool = False
    """Whether any tile-year is converted; if not, the template leaves all of it out."""
    mirrors: Mirrors = ()
    """Other places of ``data``."""
    source_mirrors: Mirrors = ()
    """Other places of ``source``."""
    buckets: tuple[Bucket, ...] = ()
    """How to reach those buckets that an address begins with."""
    views: str = ""
    """Below it lie the VRTs that the ledger names, if not below ``data``: a VRT names the files beside it,
    and is of no use at an address whose neighbours are at others."""

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Read what :func:`dataclasses.asdict` made, through JSON."""
        return cls(
            **{
                **said,
                "mirrors": _mirrors(said.get("mirrors", ())),
                "source_mirrors": _mirrors(said.get("source_mirrors", ())),
                "buckets": tuple(Bucket(**b) for b in said.get("buckets", ())),
            }
        )

    @property
    def extensions(self) -> list[str]:
        """The extensions that items with these addresses declare beside their own."""
        alternate = [ALTERNATE] if self.mirrors or self.source_mirrors else []
        return [*([STORAGE] if self.schemes else []), *alternate]

    @property
    def schemes(self) -> dict[str, Any]:
        """Those buckets, as storage schemes by name, that items say anything of."""
        used = {_bucket(a) for a in (self.source, self.landmasks, *([self.data] if self.cogs else []))}
        return {b.name: b.scheme for b in self.buckets if b.name in used}

    def stored(self, address: str) -> dict[str, Any]:
        """Return the asset field that says in which bucket a file below an address is; empty if in none."""
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
    """Return the asset field that lists a file's other places; empty if there are none.

    Parameters
    ----------
    mirrors
        The other places.
    href
        Gives the file's href, as a node of the template, from the address that it lies below.
    """
    places = {name: {"href": href(address), "alternate:name": name} for name, address in mirrors}
    return {"alternate": places} if places else {}


def parse_mirrors(texts: Iterable[str], option: str) -> Mirrors:
    """Read ``NAME=ADDRESS``, one a text.

    >>> parse_mirrors(["lab=https://data.example.org/cogs/"], "--mirror")
    (('lab', 'https://data.example.org/cogs'),)

    Raises
    ------
    QueryError
        If a text has another form, an address is not https, http or s3, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, address = text.partition("=")
        if not name.strip() or not address.startswith(("https://", "http://", "s3://")):
            raise QueryError(f"{option}: expected NAME=ADDRESS with an https or s3 address, found '{text}'")
        if name in found:
            raise QueryError(f"{option}: two places of the name '{name}'")
        found[name] = address.rstrip("/")
    return tuple(found.items())
