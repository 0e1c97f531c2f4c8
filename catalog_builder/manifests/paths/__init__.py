"""Parsing of file paths into tile, year and kind, and grouping of files into tile-years."""
