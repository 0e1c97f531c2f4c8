"""Read a window of a tile-year, from any container."""
