"""The check of credentials at the door: from a request's ``Authorization`` to the reader."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from api.readers.listed import Listed
from api.readers.reader import ANYBODY, Privacy, Reader, patterns
from api.settings import Settings
from catalog_builder.errors import CatalogError, UnavailableError
from catalog_builder.extras import install_line

LOG = logging.getLogger("tessera_stac")

OPEN_PATHS = ("/_mgmt/",)
"""Open even where everything is private: probes have no credentials. What they show, anybody may see."""
_LOOK_SECONDS = 1.0
_REMEMBERED = 2000
_REMEMBERED_SECONDS = 60.0
_WAITING = 50
"""Requests whose password may wait to be checked, 0.2 s each."""
_LONGEST = 16_384


def has_readers(settings: Settings) -> bool:
    """Return whether the settings ask for access control."""
    return bool(settings.private or settings.readers or settings.readers_file or settings.oidc_issuer)


class RefusedError(Exception):
    """Credentials that are missing or wrong (HTTP 401)."""


class Door:
    """Who is asking.

    Parameters
    ----------
    settings
        Its ``private``, ``readers``, ``readers_file`` and ``oidc_*``.

    Raises
    ------
    CatalogError
        If the readers cannot be read, or the extra for OpenID Connect is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self.privacy = Privacy(patterns(settings.private))
        self._inline = settings.readers.replace(";", "\n").splitlines()
        self._file = settings.readers_file
        self._issuer = settings.oidc_issuer
        self._seen: object = None
        self._looked = float("-inf")
        self._listed = Listed(())
        self._known: OrderedDict[bytes, tuple[float, Reader | None]] = OrderedDict()
        # Not the credentials themselves, nor a digest that could be looked up, are kept in memory.
        self._secret = secrets.token_bytes(32)
        self._limiter: anyio.CapacityLimiter | None = None
        self._waiting = 0
        self._provider = _provider(settings) if settings.oidc_issuer else None
        self._renew(may_fail=True)

    @property
    def schemes(self) -> dict[str, dict[str, Any]]:
        """The schemes as the authentication extension of STAC writes them."""
        found: dict[str, dict[str, Any]] = {}
        for scheme, is_used in self._listed.schemes.items():
            if is_used:
                found[scheme] = {"type": "http", "scheme": scheme}
        if self._issuer:
            url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
            found["oidc"] = {"type": "openIdConnect", "openIdConnectUrl": url}
        return found

    @property
    def challenge(self) -> str:
        """The ``WWW-Authenticate`` of a refusal."""
        schemes = self._listed.schemes
        basic = 'Basic realm="tessera-stac", charset="UTF-8"' if schemes["basic"] else ""
        bearer = 'Bearer realm="tessera-stac"' if schemes["bearer"] or self._issuer or not basic else ""
        return ", ".join(filter(None, (basic, bearer)))

    async def admit(self, headers: Mapping[bytes, bytes], path: str) -> Reader:
        """Return who sent a request.

        Raises
        ------
        RefusedError
            If the credentials are wrong, or missing where nothing is public.
        UnavailableError
            If they cannot be checked at the moment.
        """
        given = headers.get(b"authorization")
        if given is None:
            if self.privacy.is_total and not path.startswith(OPEN_PATHS):
                raise RefusedError("this catalogue needs credentials")
            return ANYBODY
        self._renew()
        if len(given) > _LONGEST:
            raise RefusedError("the credentials are too long")
        digest = hashlib.blake2b(given, key=self._secret, digest_size=32).digest()
        reader = self._remembered(digest)
        if reader is None:
            reader = await self._check(given, digest)
        if reader is None:
            raise RefusedError("the credentials are wrong, or have expired")
        return reader

    def _remembered(self, digest: bytes) -> Reader | None:
        """Return the reader of credentials that were checked a moment ago."""
        found = self._known.get(digest)
        if found is None or found[0] < time.monotonic():
            return None
        if found[1] is None:
            raise RefusedError("the credentials are wrong, or have expired")
        return found[1]

    async def _check(self, given: bytes, digest: bytes) -> Reader | None:
        """Check credentials; one after another, because a password takes a core for 0.2 s."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(1)
        if self._waiting >= _WAITING:
            raise UnavailableError("too many credentials wait to be checked; try again")
        self._waiting += 1
        try:
            async with self._limiter:
                # of the requests that came together, the first has checked them
                if (reader := self._remembered(digest)) is not None:
                    return reader
                found = await anyio.to_thread.run_sync(self._look_up, given)
                self._known[digest] = time.monotonic() + _REMEMBERED_SECONDS, found
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
                return found
        finally:
            self._waiting -= 1

    def _look_up(self, given: bytes) -> Reader | None:
        kind, _, value = given.decode("latin-1").strip().partition(" ")
        value = value.strip()
        if kind.lower() == "basic":
            try:
                name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                return None
            return self._listed.of_password(name, password) if colon else None
        if kind.lower() != "bearer":
            return None
        found = self._listed.of_token(value)
        if found is None and self._provider is not None and value.count(".") == 2:
            found = self._provider(value)
        return found

    def _renew(self, *, may_fail: bool = False) -> None:
        """Read the readers if their file has changed; what cannot be read leaves those that were."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        try:
            seen = _identity(self._file)
            if seen == self._seen and not may_fail:
                return
            lines = self._inline if self._file is None else [*self._inline, *_lines(self._file)]
            self._listed, self._seen = Listed(lines), seen
            self._known.clear()
        except CatalogError as error:
            if may_fail:
                raise
            LOG.warning("the readers stay as they were: %s", error)


def _identity(file: Path | None) -> object:
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError as error:
        raise CatalogError(f"readers_file: {file}: cannot be read ({error.strerror})") from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"readers_file: {file}: cannot be read ({error})") from error


def _provider(settings: Settings) -> Callable[[str], Reader | None]:
    try:
        from api.readers.oidc import Provider
    except ImportError as error:
        raise CatalogError(f"OpenID Connect needs PyJWT ({error}): {install_line('oidc')}") from error
    return Provider(settings).reader
