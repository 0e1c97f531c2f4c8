"""Coverage (the years of each tile): the table, the thumbnail, the page and its map tiles."""
