"""The index's record of a collection, apart from its tiles."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self

from catalog_builder.item.addresses import Addresses
from catalog_builder.item.stored import Store, view_of
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.tile import grid
from catalog_builder.tile.datasets import Dataset, dataset


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """The index's record of a collection, apart from its tiles."""

    ordinal: int
    """Position in the order of collections, from 1."""
    dataset: Dataset
    years: tuple[int, ...]
    """Years that any of its tiles has, ascending."""
    addresses: Addresses
    grid: grid.Grid
    source_root: str
    """Location of the source files: a local folder, or a URL to redirect to; or of the store that has all."""
    landmask_root: str
    counts: tuple[int, ...]
    """Tile-years per year."""
    n_tiles: int
    """Distinct tiles."""
    zones: tuple[ZoneGroup, ...] = ()
    """The UTM zones that have tiles, as one array each; none if an earlier version made the catalogue."""

    @property
    def id(self) -> str:
        """Collection id."""
        return self.dataset.collection_id

    @property
    def container(self) -> Literal["npy", "store"]:
        """What is at the source root: files of arrays, or a store that tile-years are windows of."""
        return "store" if self.addresses.is_direct_from_store else "npy"

    @property
    def view(self) -> Store | None:
        """The arrays of its zones as a store, at the API; None if nothing is known of the zones."""
        return view_of(self.dataset.directory, self.zones)

    @property
    def n_items(self) -> int:
        """Tile-years."""
        return sum(self.counts)

    def to_json(self) -> str:
        """Serialise; the inverse of :meth:`from_json`."""
        return json.dumps({**asdict(self), "dataset": self.dataset.directory})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the output of :meth:`to_json`."""
        d = json.loads(text)
        d["dataset"] = dataset(d["dataset"])
        d["addresses"] = Addresses.from_json(d["addresses"])
        for name in ("years", "counts"):
            d[name] = tuple(d[name])
        d["zones"] = tuple(ZoneGroup.from_json(zone) for zone in d.get("zones", ()))
        return cls(**d)
