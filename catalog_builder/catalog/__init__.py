"""A catalogue: its folder or bucket, the search index, collections and coverage."""
