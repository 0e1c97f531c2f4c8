"""The catalogue's files at ``/data``: those that clients read, of collections that the reader may see.

Served are the documents and tables of collections, and converted tiles. The index and the ledger are the
operator's: they hold paths and notes of the machine that built them, and no client reads them over HTTP.
"""

from __future__ import annotations

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from api.catalogue.snapshot import Snapshot
from api.catalogue.store import Store
from api.files.folder import visible
from api.files.ranges import Document
from api.files.respond import respond
from api.files.sending import only_reading, route_path, send_error, send_not_found
from api.http.links import JSON
from catalog_builder.catalog.collection import CATALOG_TITLE
from catalog_builder.catalog.folder import CATALOG_JSON, COGS, INDEX
from catalog_builder.errors import UnavailableError
from catalog_builder.item.item import STAC_VERSION
from catalog_builder.storage.headers import REVALIDATE
from catalog_builder.tile.files import LEDGER


class CatalogueFiles:
    """An ASGI app that serves the catalogue's files through another one.

    Parameters
    ----------
    files
        What serves all files of the catalogue.
    store
        The catalogue, as the reader who asks may see it.
    is_open
        Whether nothing is private: then other files of the folder are served too, as the operator put them.
    """

    def __init__(self, files: ASGIApp, store: Store, *, is_open: bool) -> None:
        self._files = files
        self._store = store
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await only_reading(scope, send)
            return
        path = visible(route_path(scope).removesuffix("/"), scope.get("raw_path") or b"") or ""
        first, _, rest = path.partition("/")
        if first.startswith(INDEX) or (first == COGS and rest.split("/")[0] == LEDGER):
            await send_not_found(scope, send, "no such file")
            return
        if self._is_open:
            await self._files(scope, receive, send)
            return
        try:
            snapshot = self._store.current()
        except UnavailableError as error:
            await send_error(scope, send, 503, "Unavailable", str(error), [(b"retry-after", b"5")])
            return
        if path == CATALOG_JSON:
            body = Document(orjson.dumps(_root(snapshot)))
            await respond(scope, receive, send, body, media_type=JSON, cache_control=REVALIDATE)
        elif _is_seen(path, snapshot):
            await self._files(scope, receive, send)
        else:
            await send_not_found(scope, send, "no such file")


def _is_seen(path: str, snapshot: Snapshot) -> bool:
    first, *more = path.split("/")
    if first == COGS:
        return bool(more) and more[0] in {r.dataset.directory for r in snapshot.collections.values()}
    return first in snapshot.documents


def _root(snapshot: Snapshot) -> dict[str, object]:
    """Return the root of the static catalogue, which names its collections, as the reader may see it."""
    kind = {"type": JSON}
    return {
        "type": "Catalog",
        "id": "tessera-stac",
        "stac_version": STAC_VERSION,
        "title": CATALOG_TITLE,
        "description": CATALOG_TITLE,
        "links": [
            {"rel": "root", "href": f"./{CATALOG_JSON}", **kind},
            *(
                {"rel": "child", "href": f"./{r.id}/collection.json", "title": r.dataset.title, **kind}
                for r in snapshot.collections.values()
            ),
        ],
    }
