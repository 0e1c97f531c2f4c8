"""Regions that users give: boxes, geometries, files of them."""
