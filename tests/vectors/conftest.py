"""The catalogue with converted and unconverted tiles, served."""

from tests.support.containers import contained, contained_in, unconverted
from tests.support.served import server, tiles

__all__ = ["contained", "contained_in", "server", "tiles", "unconverted"]
