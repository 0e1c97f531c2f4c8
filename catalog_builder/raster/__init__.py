"""Input for GDAL: VRT documents, labels of published arrays, and configuration options."""
