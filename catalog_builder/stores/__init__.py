"""Zarr and Icechunk stores of TESSERA: which zones, years and shards there are, and their arrays by range.

Opening one needs the optional packages of the extra ``zarr``; :mod:`catalog_builder.stores.zones` does not.
"""
