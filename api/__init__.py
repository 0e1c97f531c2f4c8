"""Serve a tessera-stac catalogue: STAC API, data by ranged reads, generated views."""
