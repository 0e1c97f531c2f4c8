"""The search index: one SQLite file with a clustered integer key, written in bulk and then only read."""
