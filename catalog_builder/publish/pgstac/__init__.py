"""Into pgSTAC: load what changed, and note what was loaded."""
