"""Statistics of the vectors in polygons; :mod:`.weights` is how much each pixel counts."""
