"""The STAC Item, defined once, and its renderers: JSON text, Arrow columns, one asset per band."""
