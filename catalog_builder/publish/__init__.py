"""Exports generated from the item definition."""
