"""What ``import tessera_stac`` gives: vectors of a catalogue, for scripts and notebooks.

The functions are documented where they are: :mod:`.catalogs`, :mod:`.tables`, :mod:`.frames`,
:mod:`.samples`.
"""

from catalog_builder.errors import TesseraError
from catalog_builder.public.catalogs import Catalog, Collection, open_catalog
from catalog_builder.public.frames import vectors
from catalog_builder.public.samples import patch_grid, patches
from catalog_builder.public.tables import points, region, zonal

__all__ = [
    "Catalog",
    "Collection",
    "TesseraError",
    "open_catalog",
    "patch_grid",
    "patches",
    "points",
    "region",
    "vectors",
    "zonal",
]
