"""The public name of what reads a region; it lives in :mod:`catalog_builder.tile.regions.region_file`."""

from catalog_builder.tile.regions.region_file import region_of

__all__ = ["region_of"]
