"""Manifests in Parquet: geotessera's registries, and the manifests of s3scan and file-scan."""
