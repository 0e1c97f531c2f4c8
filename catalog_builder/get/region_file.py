"""The public name of :mod:`catalog_builder.tile.regions.region_file`, which reads a region."""

from catalog_builder.tile.regions.region_file import region_of

__all__ = ["region_of"]
