"""Tables: points and polygons from files of many formats, and vectors into tables."""
