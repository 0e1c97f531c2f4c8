"""Synthetic tiles in upstream's formats, for tests and the demo; never TESSERA data."""
