"""Vectors over HTTP: at points, and statistics in polygons."""
