"""Conversion of .npy pairs and GeoTIFFs to Cloud Optimized GeoTIFFs, and the conversion ledger."""
