"""Parts of a request, parsed and validated: areas, times, fields, views, tokens."""
