"""Filters as SQL: CQL2, the query extension, free text; queryables define the properties."""
