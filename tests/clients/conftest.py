"""The catalogue with converted and unconverted tiles, served."""

from tests.support.served import server, tiles

__all__ = ["server", "tiles"]
