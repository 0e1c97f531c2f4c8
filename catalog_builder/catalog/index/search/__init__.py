"""Searching an index: the key ranges of a selection, pages of rows, counts, other orders."""
