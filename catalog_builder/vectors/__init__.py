"""Vectors and values for users: a region as files, points, a preview.

:mod:`.find` asks a catalogue, :mod:`.plan` decides which pixels are wanted and what that costs,
:mod:`.write` writes them, and :mod:`.run` does it in order and can resume.
"""
