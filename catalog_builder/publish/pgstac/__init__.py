"""Loading into pgSTAC: load what changed, and record what was loaded."""
