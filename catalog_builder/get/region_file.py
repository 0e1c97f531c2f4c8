"""The public name of :mod:`catalog_builder.tile.regions.region`, which reads a region."""

from catalog_builder.tile.regions.region import region_of

__all__ = ["region_of"]
