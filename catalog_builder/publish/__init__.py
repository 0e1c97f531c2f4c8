"""Outputs made from the item definition for others to read."""
