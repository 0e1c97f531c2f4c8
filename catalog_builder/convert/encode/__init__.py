"""Pure: arrays in, arrays or the bytes of a file out. Codes, overviews, colours, TIFF."""
