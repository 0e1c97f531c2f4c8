"""Write the float32 views of a converted tile-year anew, if they are of an earlier form. No pixel is read.

The names of a tile-year's files hold a hash of all of them, and are never given to other bytes. So codes and
scales get a second name beside the new views: by a hard link where the disk has them, by a copy inside the
store in S3. What was there stays for the catalogues that name it.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from affine import Affine

from catalog_builder import storage
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.tile.profiles import write_view
from catalog_builder.convert.tile.staging import publish, stage_published, staging
from catalog_builder.errors import ConvertError
from catalog_builder.raster.vrt import CogView
from catalog_builder.tile.grid import Raster


def renew_view(row: LedgerRow, options: ConvertOptions) -> LedgerRow:
    """Write a result's float32 views in the form of now; return its row with the new names.

    Parameters
    ----------
    row
        Of a tile-year with a float32 view of any form.
    options
        Where the files are.

    Raises
    ------
    ConvertError
        If the view is not what the row says.
    StorageError, OSError
        If a file cannot be read, or named.
    """
    if row.vrt is None or row.epsg is None or row.height is None or row.width is None:
        raise ConvertError(f"{row.job} has no float32 view")
    address = storage.join(options.out, row.vrt.path)
    text = storage.read_bytes(address)
    if hashlib.sha256(text).hexdigest() != row.vrt.sha256:
        raise ConvertError(f"{address} is not the file that the ledger names: its SHA-256 is another")
    view = CogView.read(text.decode())
    raster = Raster(row.epsg, Affine(*row.transform), row.height, row.width)
    with staging(options) as folder:
        renewed = replace(write_view(folder, view, raster, options, row), only="view")
        for role in ("embeddings", "scales"):
            stage_published(folder / role, row.files[role], renewed.files[role], options)
        publish(folder, replace(renewed, visual=None, thumbnail=None), options)
    return renewed
