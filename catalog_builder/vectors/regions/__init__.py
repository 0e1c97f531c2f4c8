"""A region as files: :mod:`.plan` selects pixels, :mod:`.parts` reads them, :mod:`.write` writes the outputs.

:mod:`.canvas` puts tiles together on the lattice of their zone, :mod:`.warp` puts zones together on any grid.
"""
