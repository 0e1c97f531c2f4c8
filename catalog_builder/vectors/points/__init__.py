"""Vectors at points: :mod:`.sample` is for arrays of coordinates, :mod:`.run` for files of labels."""
