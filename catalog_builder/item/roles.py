"""Roles of the files of a converted tile-year, and the name of the ledger folder."""

from __future__ import annotations

LEDGER = "ledger"
"""Default folder of the ledger, below the output."""
ROLES = ("embeddings", "scales", "gain", "vrt", "window", "visual", "thumbnail")
"""Files of a tile-year, in the order in which they are published."""
ASSET_FACTS = tuple(
    (role, fact)
    for role in ROLES
    if role != "gain"  # a part of the window's view
    for fact in ("size", "sha256", "header")
    if fact != "header" or role in ("embeddings", "scales", "visual")
)
"""What is stored of those that are assets: size, SHA-256, and the header's size of a COG."""
