"""One array per UTM zone: all tile-years of a dataset as upstream's Zarr store has them, computed when read.

The layout is that of geotessera 0.11's store (``zarr.py``), but for chunks, which are not sharded here.
Values are those that its ``zarr-fill`` writes.
"""
