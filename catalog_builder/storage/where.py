"""Whether a root is on this machine."""

from __future__ import annotations


def is_local(root: str) -> bool:
    """Whether a root is a folder of this machine, not an address."""
    return "://" not in root
