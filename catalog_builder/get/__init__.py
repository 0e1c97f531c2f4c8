"""The public functions behind ``tessera-stac get``, for scripts and notebooks.

They are implemented in :mod:`catalog_builder.vectors`.
"""

from catalog_builder.vectors.points.sample import Samples, sample_points
from catalog_builder.vectors.regions.run import Options, Report, get

__all__ = ["Options", "Report", "Samples", "get", "sample_points"]
