"""The public names of what ``tessera-stac get`` does, for scripts and notebooks.

The work is done in :mod:`catalog_builder.vectors`.
"""

from catalog_builder.vectors.points import Samples, sample_points
from catalog_builder.vectors.run import Options, Report, get

__all__ = ["Options", "Report", "Samples", "get", "sample_points"]
