"""The commands that give pixels: regions, points, polygons, previews."""
