"""What the paths of files say: tile, year and kind; files put together to tile-years."""
