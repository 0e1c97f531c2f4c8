"""Writing a new version of a catalogue, in which unchanged years are linked."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.record import make_record
from catalog_builder.build.report import BuildReport, YearChange, check_removals
from catalog_builder.build.staging.cogs import CogStaging
from catalog_builder.build.staging.exports import exports_below
from catalog_builder.build.staging.merge import Staging
from catalog_builder.build.staging.reader import Found
from catalog_builder.build.year_rows import Landmasks, YearRows
from catalog_builder.catalog.collection import (
    api_document,
    make_collection,
    static_document,
    write_catalog,
    write_coverage_picture,
)
from catalog_builder.catalog.digest import STATE, check_digest, write_digest
from catalog_builder.catalog.folder import INDEX
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.writer import IndexWriter
from catalog_builder.console import Progress
from catalog_builder.errors import CatalogError
from catalog_builder.item.item import item_template
from catalog_builder.item.parquet import write_items
from catalog_builder.manifests import ProblemKind, ProblemLog
from catalog_builder.stores.extent import view_groups
from catalog_builder.tile import grid
from catalog_builder.tile.table import cells
from catalog_builder.tile.years import year_bits


@dataclass(slots=True)
class NewVersion:
    """A new version of a catalogue, written from the staged rows and the previous version."""

    work: Path
    """Folder to write to."""
    current: Path | None
    """Folder of the previous version."""
    home: str
    """The catalogue: a folder, or its s3:// URL."""
    old: Index | None
    staging: Staging
    options: BuildOptions
    problems: ProblemLog
    progress: Progress
    cogs: CogStaging
    changes: list[YearChange] = field(default_factory=list)

    def write(self, found: Found) -> BuildReport:
        """Write everything, and report the differences from the previous version.

        Parameters
        ----------
        found
            What the sources hold besides rows.

        Raises
        ------
        CatalogError
            If there is no tile-year.
        """
        years = tuple(self.staging.years())
        if not years:
            reason = self.problems.explained() or "they are empty, or --years and --region exclude everything"
            raise CatalogError(f"no tile-year in the sources: {reason}")
        landmasks = Landmasks(self.staging.landmasks())
        masks = np.zeros(grid.N_CELLS, dtype=np.uint32)
        counts = []
        for year in years:
            cell = cells(self.staging.year(year))
            masks[cell] |= np.uint32(year_bits([year]))
            counts.append(len(cell))
            self.progress("merging", sum(counts), 0)
        (tiles,) = np.nonzero(masks)
        record = make_record(
            self.options,
            self.home,
            found,
            present=self.old.collections if self.old else {},
            years=dict(zip(years, counts, strict=True)),
            n_tiles=len(tiles),
            zones=view_groups(
                tiles,
                landmasks.cell,
                # as upstream's stores, which have all years of their dataset from the first day
                sorted({*range(self.options.dataset.years[0], self.options.dataset.years[1] + 1), *years}),
                found.store.groups if found.store is not None else (),
            ),
            converted=self.cogs.num_rows > 0,
        )
        collection = make_collection(record, tiles.astype(np.int32), masks[tiles])
        document = api_document(collection)
        parquet_document = {
            k: v for k, v in static_document(collection).items() if k not in ("tessera:coverage", "assets")
        }
        folder = self.work / record.id
        folder.mkdir()
        write_coverage_picture(folder, record, tiles.astype(np.int32), masks[tiles])
        with IndexWriter(self.work / INDEX) as writer, ThreadPoolExecutor(1) as pool:
            writing: list[Future[None]] = []
            done = 0
            for year in years:
                # Every year, or none: the columns of the parquet files must be the same.
                rows = YearRows(
                    exports_below(self.staging.year(year), record.source_root),
                    masks,
                    landmasks,
                    self.cogs,
                    direct_from_store=record.addresses.is_direct_from_store,
                )
                self._report_misfits(rows, year)
                self._note_stale(rows, year)
                self._note_rivals(year)
                writing += self._write_parquet(pool, record, parquet_document, year, rows)
                writer.tiles(record.ordinal, year, rows.index_rows())
                done += len(rows.cell)
                for future in writing:  # one year in memory at a time
                    future.result()
                writing.clear()
                self.progress("writing", done, sum(counts))
            writer.landmasks(
                record.ordinal,
                landmasks.cell,
                [s or None for s in landmasks.size[:-1].tolist()],
                landmasks.sha256.to_pylist()[:-1],
            )
            writer.collection(record, json.dumps(document))
            self._keep_others(writer, record)
            writer.meta("url", self.options.url)
        write_digest(self.work / INDEX)
        (folder / "collection.json").write_text(json.dumps(static_document(collection), indent=2))
        others = [c for c in (self.old.collections if self.old else {}) if c != record.id]
        documents = [json.loads((self.work / c / "collection.json").read_text()) for c in others]
        write_catalog(
            self.work, sorted([*documents, static_document(collection)], key=lambda c: str(c["id"]))
        )
        self._note_removed_years(record)
        check_removals(self.changes, self.options, self.problems)
        return BuildReport(
            collection=record.id,
            items=record.n_items,
            tiles=record.n_tiles,
            years=tuple(self.changes),
            merge=self.staging.report(),
            problems=self.problems,
            published=self._differs(record, document),
        )

    def _report_misfits(self, rows: YearRows, year: int) -> None:
        """Report tiles whose file size does not match the raster's formula."""
        (bad,) = np.nonzero(rows.misfit)

        def describe(i: int) -> tuple[str, str]:
            name = grid.TileId.from_cell(int(rows.cell[i])).name
            sizes = f"{rows.column('npy_size')[i]} and {rows.column('scales_size')[i]} bytes"
            return "", f"{year}/{name}: {sizes} do not fit the tile's raster; direct access is not possible"

        self.problems.add_rows(
            ProblemKind.MISFIT, self.options.dataset.collection_id, bad, len(bad), describe
        )

    def _note_stale(self, rows: YearRows, year: int) -> None:
        """Report converted tiles that are omitted because their source has changed."""
        if rows.cogs is None:
            return
        stale = rows.cogs.stale
        if len(stale):
            tile = grid.TileId.from_cell(int(stale[0]))
            self.problems.note(
                f"{year}: {len(stale):,} converted tiles are left out, because their source has changed since"
                f" ({tile.name} is the first): convert them again"
            )

    def _note_rivals(self, year: int) -> None:
        """Report tiles of which several sources were converted: what runs said to each other nobody knows."""
        cells = self.cogs.rivals(year)
        if len(cells):
            tile = grid.TileId.from_cell(int(cells[0]))
            self.problems.note(
                f"{year}: {len(cells):,} tiles were converted more than once, from files with other content"
                f" ({tile.name} is the first): of each the conversion that finished last is used"
            )

    def _write_parquet(
        self,
        pool: ThreadPoolExecutor,
        record: CollectionRecord,
        document: dict[str, Any],
        year: int,
        rows: YearRows,
    ) -> list[Future[None]]:
        """Compare a year with the old version; link its parquet file if it is unchanged, or write it."""
        template = item_template(record.dataset, record.addresses, self.options.url.rstrip("/"), record.grid)
        fingerprint = rows.fingerprint()
        digest = hashlib.blake2b(digest_size=16)
        for part in (repr(template), json.dumps(document), repr(record.years)):
            digest.update(part.encode())
        for array in (rows.cell, fingerprint, rows.mask):
            digest.update(np.ascontiguousarray(array).data)
        state = self.work / STATE / record.id / f"{year}.npz"
        state.parent.mkdir(parents=True, exist_ok=True)
        np.savez(state, cell=rows.cell, fingerprint=fingerprint, digest=np.array(digest.hexdigest()))
        self.changes.append(self._compare(record, year, rows.cell, fingerprint))
        path = self.work / record.id / "items" / f"year={year}" / "items.parquet"
        path.parent.mkdir(parents=True)
        before = self._old_state(record.id, year)
        if before is not None and self.current is not None and str(before["digest"]) == digest.hexdigest():
            os.link(self.current / path.relative_to(self.work), path)
            return []
        return [
            pool.submit(
                write_items,
                path,
                rows.cell,
                rows.rows_at,
                template=template,
                years=record.years,
                collection=document,
                grid_kind=record.grid,
                store=record.addresses.store,
            )
        ]

    def _old_state(self, collection: str, year: int) -> Any:
        if self.current is None:
            return None
        path = self.current / STATE / collection / f"{year}.npz"
        try:
            return np.load(path)
        except (OSError, ValueError, BadZipFile):  # missing or damaged: then the year is rewritten
            return None

    def _compare(
        self,
        record: CollectionRecord,
        year: int,
        cell: npt.NDArray[np.int32],
        fingerprint: npt.NDArray[np.uint64],
    ) -> YearChange:
        before = self._old_state(record.id, year)
        if before is None:
            return YearChange(year, len(cell), len(cell), 0, 0)
        old_cell, old_print = before["cell"], before["fingerprint"]
        common, at, old_at = np.intersect1d(cell, old_cell, assume_unique=True, return_indices=True)
        changed = int((fingerprint[at] != old_print[old_at]).sum())
        return YearChange(year, len(cell), len(cell) - len(common), changed, len(old_cell) - len(common))

    def _note_removed_years(self, record: CollectionRecord) -> None:
        if self.current is None:
            return
        # Not from the index, which may be of an older version.
        for path in sorted((self.current / STATE / record.id).glob("*.npz")):
            year = int(path.stem)
            if year not in record.years and (before := self._old_state(record.id, year)) is not None:
                self.changes.append(YearChange(year, 0, 0, 0, len(before["cell"])))

    def _keep_others(self, writer: IndexWriter, record: CollectionRecord) -> None:
        """Copy the other collections from the old version."""
        if self.old is None or self.current is None:
            return
        for other in self.old.collections.values():
            if other.id == record.id:
                continue
            writer.copy_collection(self.old.path, other, self.old.documents[other.id])
            for name in (other.id, f"{STATE}/{other.id}"):
                _link_tree(self.current / name, self.work / name)

    def _differs(self, record: CollectionRecord, document: dict[str, Any]) -> bool:
        """Return whether the new version differs from the old one."""
        if self.old is None or record.id not in self.old.collections:
            return True
        same = (
            self.old.collections[record.id] == record
            and json.loads(self.old.documents[record.id]) == document
            and self.old.meta.get("url") == self.options.url
            and all(change.untouched for change in self.changes)
        )
        if not same:
            return True
        for year in record.years:
            new = np.load(self.work / STATE / record.id / f"{year}.npz")
            before = self._old_state(record.id, year)
            if before is None or str(before["digest"]) != str(new["digest"]):
                return True
        try:
            return not check_digest(self.old.path)
        except CatalogError as exc:
            self.problems.note(f"{exc.args[0].partition(';')[0]}. It is rewritten")
            return True


def _link_tree(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            new = target / path.relative_to(source)
            new.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, new)
