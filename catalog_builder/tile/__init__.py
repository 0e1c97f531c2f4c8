"""Tiles: the 0.1 degree grid, the published datasets, regions as cells, and the TileTable.

Pure and vectorised; nothing here knows of catalogues, manifests or pixels. ``lon_i`` and ``lat_i`` are
centres in hundredths of a degree, ``row`` and ``col`` count cells from the south-west corner.
"""
