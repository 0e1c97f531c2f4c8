"""What GDAL is given to read: VRT documents, labels of published arrays, and its settings."""
