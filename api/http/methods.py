"""The methods that each path allows, from the routes themselves: for OPTIONS, 405 and ``Allow``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from fastapi import FastAPI
from starlette.routing import BaseRoute, Route


class Methods:
    """What the application's routes allow; :meth:`learn` it once all routes are there."""

    def __init__(self) -> None:
        self._routes: tuple[Route, ...] = ()
        self.of = lru_cache(maxsize=1024)(self._of)
        """Return a path's methods, sorted; none if there is no such path."""

    def learn(self, app: FastAPI) -> None:
        """Take the routes of the application."""
        self._routes = tuple(flat_routes(app.routes))
        self.of.cache_clear()

    def _of(self, path: str) -> tuple[str, ...]:
        found: set[str] = set()
        # The framework redirects to the path with, or without, a slash at its end.
        for each in (path, path.rstrip("/") if path.endswith("/") else f"{path}/"):
            for route in self._routes:
                if route.path_regex.match(each):
                    found |= route.methods or set()
            if found:
                break
        if "GET" in found:
            found.add("HEAD")
        return tuple(sorted(found | {"OPTIONS"})) if found else ()


def flat_routes(routes: Iterable[BaseRoute]) -> Iterator[Route]:
    """Yield the routes of an application, also those of routers that it includes; no mounts."""
    for route in routes:
        if isinstance(route, Route):
            yield route
        elif (router := getattr(route, "original_router", None)) is not None:
            yield from flat_routes(router.routes)
