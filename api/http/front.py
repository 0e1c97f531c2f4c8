"""The middleware that every request passes through, as one ASGI layer.

The service's root URL (proxy headers), a request id, CORS, HEAD, limits, compression, metrics and the
access log. One layer instead of six: each would wrap ``receive`` and ``send`` once more.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

import anyio
import orjson
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.exchange import Exchange
from api.http.links import service_root
from api.http.methods import Methods
from api.http.metrics import Metrics
from api.http.proxies import Proxies
from api.http.responses import error
from api.http.work.flight import Flight
from api.http.work.waiting import ERROR_KEY
from api.readers.allowance import Allowance
from api.readers.door import Door, RefusedError
from api.readers.reader import ANYBODY, ASKING
from api.settings import Settings
from catalog_builder.errors import UnavailableError

ACCESS = logging.getLogger("tessera_stac.access")
LOG = logging.getLogger("tessera_stac")

_NO_CONTENT = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_VARY_FORWARDED = (
    b"vary",
    b"Forwarded, X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Port, X-Forwarded-Prefix",
)
"""For caches between the proxy and us: links follow these headers."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
RAW_PATHS = ("/data/", "/source/", "/zarr/")
"""Apps below these paths handle HEAD, ranges and CORS themselves, and must not be compressed."""


class TooLargeError(Exception):
    """A request body beyond the limit."""


class TooSlowError(Exception):
    """A request body that did not arrive in time."""


class Front:
    """The one middleware.

    Parameters
    ----------
    app
        The wrapped application.
    settings, metrics
        Of the server.
    explain
        Called with an unexpected error before the 500 response: returns a better response, or None.
    door
        The check of credentials; None if everything is public.
    methods
        What the application's routes allow.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        explain: Callable[[Exception], Awaitable[Response | None]] | None = None,
        door: Door | None = None,
        methods: Methods | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._explain = explain
        self._door = door
        self._methods = methods or Methods()
        self._allowance = Allowance(settings.client_rate, settings.client_burst)
        self._flight = Flight(settings.max_bytes_in_flight)
        self._proxies = Proxies(settings.trusted_proxies if settings.trust_forwarded else "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        # A copy: the server reads the method from its own, to know that a HEAD has no body.
        scope = dict(scope)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        method: str = scope["method"]
        hosts = sum(name == b"host" for name, _ in scope["headers"])
        path, exchange = self._enter(scope, headers, send)
        self._metrics.begin()
        try:
            if hosts > 1:  # which of them a proxy took is not known: RFC 9112, 3.2
                refusal: Response | None = error(400, "the request has more than one Host header")
            else:
                refusal = await self._refusal(scope, headers, method, path)
            if refusal is not None:
                exchange.raw = False  # CORS and HEAD are done here
                await refusal(scope, receive, exchange.send)
            else:
                await self._answer(scope, headers, receive, exchange)
        except asyncio.CancelledError:
            # Only the server's shutdown cancels a request, when `stop_seconds` are over.
            self._metrics.error("unavailable")
            if not exchange.started:
                response = error(503, "the server is stopping, try again", {"retry-after": "1"})
                await response(scope, receive, exchange.send)
        except Exception as fault:
            if exchange.refused:
                self._metrics.error("unavailable")
                return
            response = await self._explained(fault, scope)
            if exchange.started:
                raise
            await response(scope, receive, exchange.send)
        finally:
            if (kind := scope.get(ERROR_KEY)) is not None:
                self._metrics.error(kind)
            self._flight.give(exchange.held)
            operation = getattr(scope.get("route"), "path", None) or _raw_operation(path)
            seconds = time.perf_counter() - started
            self._metrics.end(operation, method, exchange.status, seconds, exchange.sent)
            if self._settings.access_log:
                self._log(scope, method, operation, exchange, seconds)

    @classmethod
    def of(cls, app: Starlette) -> Front:
        """Return the one of an application."""
        stack = app.middleware_stack = app.build_middleware_stack()
        while not isinstance(stack, cls):
            stack = stack.app  # type: ignore[attr-defined]
        return stack

    async def let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request that the front of another process has let in, and will send on."""
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except (EOFError, ConnectionError):  # the other process is gone, or its client
            raise
        except Exception as fault:
            response = await self._explained(fault, scope)
            if started:
                raise
            await response(scope, receive, noted)

    async def _explained(self, fault: Exception, scope: Scope) -> Response:
        """Log an unexpected error; return the response that says as much of it as is known."""
        request_id = scope["tessera.request_id"]
        LOG.error("request %s failed", request_id, exc_info=fault)
        explained = await self._explain(fault) if self._explain is not None else None
        scope[ERROR_KEY] = "fault" if explained is None else "unavailable"
        return explained or error(500, f"an unexpected error; quote request id {request_id}")

    def _enter(self, scope: Scope, headers: Mapping[bytes, bytes], send: Send) -> tuple[str, Exchange]:
        """Complete the scope of a request; return its path within the service, and its sending side."""
        believed = self._proxies.believes(scope)
        if believed:
            scope["client"] = (self._proxies.client(scope, headers), 0)
        root, prefix, by_headers = self._root(scope, believed)
        scope["tessera.root"], scope["root_path"] = root, prefix
        # The framework builds redirects from these, so they must be as valid as our links.
        scope["scheme"], _, host = root.removesuffix(prefix).partition("://")
        if headers.get(b"host") != host.encode():
            others = [(k, v) for k, v in scope["headers"] if k != b"host"]
            scope["headers"] = [*others, (b"host", host.encode())]
        path: str = scope["path"]
        if prefix and path.startswith(f"{prefix}/"):
            path = path[len(prefix) :]
        scope["tessera.path"] = path
        request_id = headers.get(b"x-request-id", b"")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(8).encode()
        scope["tessera.request_id"] = request_id.decode()
        method, is_raw = scope["method"], path.startswith(RAW_PATHS)
        exchange = Exchange(self._settings, headers, method, request_id, send, is_raw, self._flight)
        exchange.origin, exchange.prefix = root.removesuffix(prefix).encode(), prefix.encode()
        if by_headers and not path.startswith("/data/"):  # files have no links to the service
            exchange.always.append(_VARY_FORWARDED)
        if exchange.raw and path.endswith("/"):  # a list of files, as a page
            exchange.always.append(_NO_CONTENT)
        if self._door is not None or not self._settings.shared_caches:
            exchange.is_private = True
            exchange.always.append((b"vary", b"Authorization"))
        return path, exchange

    async def _refusal(
        self, scope: Scope, headers: Mapping[bytes, bytes], method: str, path: str
    ) -> Response | None:
        """Note who is asking; return a response if it is too often, or the credentials are not good."""
        ASKING.set(ANYBODY)
        if method == "OPTIONS":  # a preflight has no credentials
            return None
        client = (scope.get("client") or ("",))[0]
        if seconds := self._allowance.wait(client, path):
            self._metrics.error("too_many")
            return error(429, "too many requests from this address", {"retry-after": str(seconds)})
        if self._door is None:
            return None
        try:
            ASKING.set(await self._door.admit(headers, path))
        except RefusedError as refused:
            self._metrics.error("bad_request")
            if seconds := self._allowance.wait(client, path, anyway=True):  # who tries passwords
                return error(429, "too many wrong credentials", {"retry-after": str(seconds)})
            return error(401, str(refused), {"www-authenticate": self._door.challenge})
        except UnavailableError as busy:
            self._metrics.error("unavailable")
            return error(503, str(busy), {"retry-after": "5"})
        return None

    def _root(self, scope: Scope, believed: bool) -> tuple[str, str, bool]:
        """Return the service's root URL, the path in it, and whether forwarding headers decide on it."""
        fixed = self._settings.root_url.rstrip("/")
        if fixed:
            return fixed, urlsplit(fixed).path, False
        return (*service_root(scope, self._settings.root_path, believed), believed)

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, exchange: Exchange
    ) -> None:
        if exchange.raw:
            await self._app(scope, receive, exchange.send)
            return
        if scope["method"] == "OPTIONS":
            allowed = self._methods.of(scope["tessera.path"])
            if allowed:
                await exchange.preflight(", ".join(allowed).encode())
            else:
                missing = error(404, f"no such page: {scope['tessera.path'][:200]}")
                await missing(scope, receive, exchange.send)
            return
        if scope["method"] == "HEAD":
            scope["method"], scope["tessera.head"] = "GET", True
        limit = self._settings.max_body_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:18]) > limit:
            self._metrics.error("too_large")
            response = error(
                413, f"the body has {int(length)} bytes, but at most {limit} are accepted{_instead(scope)}"
            )
            await response(scope, receive, exchange.send)
            return
        if len(scope["query_string"]) > self._settings.max_url_bytes:
            most = self._settings.max_url_bytes
            self._metrics.error("too_large")
            response = error(414, f"the query string is longer than {most} bytes; use {_post(scope)}")
            await response(scope, receive, exchange.send)
            return
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            response = error(415, "the body is compressed (Content-Encoding); send it uncompressed")
            await response(scope, receive, exchange.send)
            return
        read, more = 0, True
        deadline = anyio.current_time() + self._settings.body_seconds

        async def limited() -> Message:
            nonlocal read, more
            if not more:  # the only message now is that the client has left
                return await receive()
            try:
                with anyio.fail_after(deadline - anyio.current_time()):
                    message = await receive()
            except TimeoutError:
                raise TooSlowError from None
            more = message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > limit:
                raise TooLargeError
            exchange.hold_body(read)
            return message

        try:
            await self._app(scope, limited, exchange.send)
        except TooLargeError:
            self._metrics.error("too_large")
            response = error(
                413,
                f"the body has more than {limit} bytes, but at most {limit} are accepted{_instead(scope)}",
            )
            await response(scope, receive, exchange.send)
        except TooSlowError:
            self._metrics.error("too_slow")
            response = error(
                408,
                f"the body did not arrive within {self._settings.body_seconds:g} s",
                {"connection": "close"},
            )
            await response(scope, receive, exchange.send)

    def _log(self, scope: Scope, method: str, operation: str, exchange: Exchange, seconds: float) -> None:
        client = scope.get("client")
        ACCESS.info(
            orjson.dumps(
                {
                    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "id": scope["tessera.request_id"],
                    "client": client[0] if client else None,
                    "method": method,
                    "path": scope["path"],
                    "query": scope["query_string"][:2000].decode("latin-1"),
                    "operation": operation,
                    "status": exchange.status,
                    "bytes": exchange.sent,
                    "ms": round(seconds * 1000, 2),
                }
            ).decode()
        )


def _instead(scope: Scope) -> str:
    """Return what does without a server's limits what a request asked for."""
    verb = scope["path"].rpartition("/")[2]
    return f": 'tessera-stac {verb}' takes files of any size" if verb in ("points", "zonal") else ""


def _post(scope: Scope) -> str:
    """Return what takes in a body what a request has in its URL."""
    instead = {"position": "/points", "area": "/zonal"}.get(scope["path"].rpartition("/")[2], "/search")
    return f"POST {instead}" if instead == "/search" else f"POST {instead} of the collection"


def _raw_operation(path: str) -> str:
    """Return the operation under which a path without a route is counted."""
    return next((p.rstrip("/") for p in RAW_PATHS if path.startswith(p)), "other")
