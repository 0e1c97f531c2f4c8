"""The files of a converted tile-year, by role, and the folder of their ledger."""

from __future__ import annotations

LEDGER = "ledger"
"""Folder of the ledger below the output, by default."""
ROLES = ("embeddings", "scales", "vrt", "visual", "thumbnail")
"""Files of a tile-year, in the order in which they are published."""
