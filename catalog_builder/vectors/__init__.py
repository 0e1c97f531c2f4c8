"""Embeddings for users: a region as files, values at points, a preview.

:mod:`.find` searches a catalogue, :mod:`.plan` selects pixels and estimates the cost,
:mod:`.write` writes them, and :mod:`.run` runs these steps and can resume.
"""
