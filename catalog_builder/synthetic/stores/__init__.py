"""Synthetic tiles in the two stores that upstream publishes: Zarr by zone, and Icechunk by hemisphere.

Both are filled from the ``.npy`` files of a sample, a block of 256 pixels at a time.
"""
