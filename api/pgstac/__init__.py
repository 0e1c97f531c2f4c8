"""The API on PostgreSQL with pgSTAC, through stac-fastapi-pgstac: for ``TESSERA_STAC_BACKEND=pgstac``.

Requests are parsed and refused as over the index (:mod:`api.search.query`), and answers are shown in the same
views. What lies between is stac-fastapi-pgstac's client and pgSTAC's own ``search``; where they are
known to answer wrongly, :mod:`api.pgstac.translate` and :mod:`api.pgstac.filters` ask otherwise.
docs/pgstac.md lists what differs.
"""
