"""Which tile has which years: the table, the thumbnail, the page and its map tiles."""
