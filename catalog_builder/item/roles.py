"""Roles of the files of a converted tile-year, and the name of the ledger folder."""

from __future__ import annotations

LEDGER = "ledger"
"""Default folder of the ledger, below the output."""
ROLES = ("embeddings", "scales", "vrt", "visual", "thumbnail")
"""Files of a tile-year, in the order in which they are published."""
