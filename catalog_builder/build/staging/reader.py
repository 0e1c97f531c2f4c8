"""The sources of a build, read into its staging area."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.staging.blocks import BlockStaging
from catalog_builder.build.staging.exports import placed_exports
from catalog_builder.build.staging.merge import Staging
from catalog_builder.build.staging.stores import StoreSource, in_groups, published_store
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.console import Progress
from catalog_builder.errors import CatalogError, DatasetError, StorageError
from catalog_builder.item.stored import Store
from catalog_builder.manifests import ManifestPart, ProblemLog, read_dataset
from catalog_builder.manifests.part import Subset
from catalog_builder.stores.open import is_store
from catalog_builder.tile import grid
from catalog_builder.tile.blocks import published_grid
from catalog_builder.tile.table import cells


@dataclass(slots=True)
class Found:
    """What was found in the sources besides rows."""

    roots: set[str] = field(default_factory=set)
    """Roots of the data folders among them."""
    export_roots: set[str] = field(default_factory=set)
    """Folders with exported GeoTIFFs."""
    store: Store | None = None
    """The store that tile-years are windows of."""
    has_files: bool = False
    """Whether any tile-year has files of its own, arrays or a GeoTIFF."""
    has_arrays_elsewhere: bool = False
    """Whether arrays are listed by something that does not say where they lie: where they are published."""


class Reader:
    """Reads sources into the staging area of a build.

    Parameters
    ----------
    work
        Folder for temporary files.
    old
        The existing catalogue, whose rows of the collection are kept with ``options.update``.
    """

    def __init__(
        self,
        work: Path,
        staging: Staging,
        options: BuildOptions,
        problems: ProblemLog,
        old: Index | None,
        progress: Progress,
    ) -> None:
        self._work = work
        self._staging = staging
        self._options = options
        self._problems = problems
        self._old = old
        self._progress = progress
        self._rows = 0
        self._found = Found()
        self._land = np.zeros(grid.N_CELLS, np.bool_)
        self._zone_years: set[tuple[int, int]] = set()

    def read(self, sources: Sequence[str]) -> Found:
        """Fill the staging area.

        Raises
        ------
        ManifestError, StorageError
            If a source cannot be read, or at its first problem when strict.
        DatasetError
            If a source is of another dataset, or says what is in a store of which nothing is known.
        CatalogError
            If a source needs a list of land, or several are stores.
        """
        ds = self._options.dataset
        stores = [source for source in sources if is_store(source)]
        if len(stores) > 1:
            raise CatalogError(
                f"{' and '.join(stores)}: the tile-years of a collection are windows of one store: give one"
            )
        source = StoreSource.open(stores[0], ds) if stores else None
        with ExitStack() as stack:
            blocks = stack.enter_context(BlockStaging(self._work, published_grid))
            if self._options.update and self._old is not None and ds.collection_id in self._old.collections:
                record = self._old.collections[ds.collection_id]
                self._found.store = record.addresses.store
                for part in _present(self._old, record):
                    self._add(part, blocks)
            if source is not None:
                self._found.store = source.store
            registry = source.registry() if source is not None else None
            for one in (*(s for s in sources if s not in stores), *([registry] if registry else [])):
                for part in self._parts(one):
                    self._add(part, blocks)
            if self._zone_years:
                if source is None:
                    self._found.store = published_store(ds, self._zone_years)
                self._add_tiles(blocks, f"{ds.directory}: blocks of the store's registry")
            elif source is not None:
                shards = stack.enter_context(BlockStaging(self._work, source.grid_of))
                for table in source.shards() if registry is None else self._not_in(registry, source):
                    shards.add(table)
                self._add_tiles(shards, source.store.address)
        return self._found

    def _not_in(self, registry: str, source: StoreSource) -> list[pa.Table]:
        """Return the shards that were written and hold no tile of the registry beside the store.

        geotessera does not write the registry any more: what was filled since is not in it.
        """
        everything = read_dataset(registry, self._options.dataset, problems=ProblemLog())
        try:
            found = source.shards_without([p.tiles for p in everything if p.tiles is not None])
        except StorageError as error:
            self._problems.note(f"{registry}: may be older than the store, which cannot be seen: {error}")
            return []
        n = sum(table.num_rows for table in found)
        if not n:
            return []
        missing = (
            "" if self._land.any() else "; give the list of landmasks as a further source to include them"
        )
        self._problems.note(
            f"{registry}: is older than the store, {n:,} shards hold none of its tiles{missing}"
        )
        return found if self._land.any() else []

    def _parts(self, source: str) -> Iterator[ManifestPart]:
        options = self._options
        return read_dataset(
            source,
            options.dataset,
            problems=self._problems,
            years=options.years,
            bounds=options.bounds,
            is_said=options.is_dataset_said,
        )

    def _add(self, part: ManifestPart, blocks: BlockStaging) -> None:
        """Add a part of a manifest, or of the existing catalogue."""
        if part.blocks is not None and part.blocks.num_rows:
            blocks.add(part.blocks)
            pairs = part.blocks.group_by(["epsg", "year"]).aggregate([]).to_pylist()
            self._zone_years.update((pair["epsg"], pair["year"]) for pair in pairs)
        if part.landmasks is not None:
            self._land[cells(part.landmasks)] = True
        if part.tiles is not None and part.tiles.num_rows:
            files = part.tiles["geotiff"].null_count < part.tiles.num_rows
            has_arrays = bool(np.any(part.tiles["has_npy"].to_numpy()))
            self._found.has_files |= files or has_arrays
            if part.tiles["in_store"].to_numpy().any():
                part = replace(part, tiles=self._in_store(part.source, part.tiles))
            if part.root is not None:
                (self._found.roots if has_arrays else self._found.export_roots).add(part.root)
                if files and self._options.source_root is None:
                    part = replace(part, tiles=placed_exports(part.tiles, part.root))
            elif has_arrays:
                self._found.has_arrays_elsewhere = True
            self._rows += part.tiles.num_rows if part.tiles is not None else 0
        self._staging.add(part)
        self._progress("reading manifests", self._rows, 0)

    def _in_store(self, source: str, tiles: pa.Table) -> pa.Table:
        """Return tile-years without those that are in a store according to their source, and are not."""
        store = self._found.store
        if store is None:
            raise DatasetError(
                f"{source}: lists tile-years that are in a store: give the address of the store as a further"
                " source"
            )
        in_store = tiles["in_store"].to_numpy()
        lost = in_store & ~in_groups(store, tiles)
        if not lost.any():
            return tiles
        self._note_missing(source, int(lost.sum()))
        column = tiles.schema.get_field_index("in_store")
        tiles = tiles.set_column(column, tiles.schema.field(column), pa.array(in_store & ~lost))
        has_files = pc.or_(tiles["has_npy"], pc.is_valid(tiles["geotiff"])).to_numpy()
        return tiles.filter(pa.array(~lost | has_files))

    def _add_tiles(self, blocks: BlockStaging, source: str) -> None:
        """Add the tile-years that lie in blocks and on land."""
        store, ds = self._found.store, self._options.dataset
        if store is None or not blocks.years():
            return
        if not self._land.any():
            where = ds.published_landmasks
            raise CatalogError(
                f"{source}: says which squares are filled, and not which of their tiles are land: give the"
                " list of landmasks as a further source"
                + (f", such as {where}/landmasks.parquet" if where else "")
            )
        subset = Subset(self._options.years, self._options.bounds)
        missing = 0
        for year in blocks.years():
            if subset.years is not None and year not in subset.years:
                continue
            listed = blocks.tiles(year, self._land, subset)
            inside = in_groups(store, listed)
            missing += int((~inside).sum())
            tiles = listed if inside.all() else listed.filter(pa.array(inside))
            self._rows += tiles.num_rows
            self._staging.add(ManifestPart(source, ds, tiles=tiles))
            self._progress("reading manifests", self._rows, 0)
        self._note_missing(source, missing)

    def _note_missing(self, source: str, n: int) -> None:
        if n:
            self._problems.note(
                f"{source}: {n:,} tile-years are left out: the store has no group for them, or its zone is"
                " not complete in that year"
            )


def _present(old: Index, record: CollectionRecord) -> Iterable[ManifestPart]:
    """Return a catalogue's rows of a collection as if they came from a manifest."""
    source = f"{old.path} ({record.id})"
    for year in record.years:
        tiles = old.tile_table(record.ordinal, year)
        yield ManifestPart(source=source, dataset=record.dataset, tiles=tiles)
    yield ManifestPart(source=source, dataset=record.dataset, landmasks=old.landmask_table(record.ordinal))
