"""Pure functions from arrays to arrays or the bytes of a file: codes, overviews, colours, TIFF."""
