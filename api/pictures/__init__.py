"""Previews and map tiles."""
