"""Build STAC catalogues of Cloud Optimized GeoTIFFs from TESSERA tile manifests."""

__version__ = "0.2.0"
