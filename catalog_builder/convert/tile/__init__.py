"""One tile: read its source, write its files, verify and publish them."""
