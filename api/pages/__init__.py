"""HTML pages: STAC Browser, the coverage map."""
