"""The catalogue being served, from a folder or bucket, refreshed as new builds appear."""
