"""Fetch the pixels of a region: find its tile-years, read only what it touches, write one file or many.

:mod:`.find` asks a catalogue, :mod:`.plan` decides which pixels are wanted and what that costs,
:mod:`.read` reads them, :mod:`.write` writes them, and :mod:`.run` does it in order and can resume.
"""

from catalog_builder.get.points import Samples, sample_points
from catalog_builder.get.run import Options, Report, get

__all__ = ["Options", "Report", "Samples", "get", "sample_points"]
