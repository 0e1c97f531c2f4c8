"""Filters as SQL: CQL2, the query extension, free text; queryables are the one list of properties."""
