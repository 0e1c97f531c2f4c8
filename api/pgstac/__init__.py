"""The API on PostgreSQL with pgSTAC, through stac-fastapi-pgstac: for ``TESSERA_STAC_BACKEND=pgstac``.

Requests are parsed and rejected as with the index (:mod:`api.search.query`), and responses have the same
views. In between are stac-fastapi-pgstac's client and pgSTAC's own ``search``; where these are
known to be wrong, :mod:`api.pgstac.translate` and :mod:`api.pgstac.filters` rewrite the search.
docs/pgstac.md lists the differences.
"""
