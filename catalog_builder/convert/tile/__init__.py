"""One tile: read its source, make its files, verify them, put them in their place."""
