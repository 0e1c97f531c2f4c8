"""Readers whom an OpenID Connect provider knows: JSON Web Tokens, checked by PyJWT (the extra ``oidc``)."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import jwt

from api.readers.reader import Reader, patterns
from api.settings import Settings
from catalog_builder.errors import UnavailableError

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Of public keys only: with a shared secret, or none, whoever knows the public key could sign."""
_KEPT_SECONDS = 3600.0
"""How long keys are used before they are fetched again."""
_RENEWED_SECONDS = 30.0
"""Minimum interval between fetches because of an unknown key: anybody can make up its name."""
_LEEWAY_SECONDS = 30


class Provider:
    """The provider whose tokens are accepted.

    Parameters
    ----------
    settings
        Its ``oidc_issuer``, ``oidc_audience`` and ``oidc_claim``.
    """

    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.oidc_issuer
        self._audience = settings.oidc_audience
        self._claim = settings.oidc_claim
        self._keys: dict[str | None, Any] = {}
        self._fetched = float("-inf")
        self._lock = threading.Lock()

    def reader(self, token: str) -> Reader | None:
        """Return the reader of a token, None if it is not valid; call it from a thread.

        Raises
        ------
        UnavailableError
            If the provider's keys cannot be fetched.
        """
        try:
            header = jwt.get_unverified_header(token)
            key = self._key(header.get("kid"))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=list(_ALGORITHMS),
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        return Reader(str(claims["sub"])[:200], _collections(claims.get(self._claim)))

    def _key(self, name: object) -> Any:
        wanted = name if isinstance(name, str) else None
        with self._lock:
            age = time.monotonic() - self._fetched
            if age > _KEPT_SECONDS or (wanted not in self._keys and age > _RENEWED_SECONDS):
                self._keys = self._fetch()
                self._fetched = time.monotonic()
            return self._keys.get(wanted)

    def _fetch(self) -> dict[str | None, Any]:
        try:
            with httpx.Client(timeout=5) as http:
                found = http.get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                keys = http.get(found.raise_for_status().json()["jwks_uri"])
                known = jwt.PyJWKSet.from_dict(keys.raise_for_status().json()).keys
        except (httpx.HTTPError, httpx.InvalidURL, jwt.PyJWTError, ValueError, KeyError, TypeError) as error:
            raise UnavailableError("the OpenID Connect provider does not give its keys; try again") from error
        by_name: dict[str | None, Any] = {key.key_id: key for key in known}
        if len(known) == 1:  # a token need not name the only one
            by_name[None] = known[0]
        return by_name


def _collections(claim: object) -> tuple[str, ...]:
    """Return the collections in a claim: a list, or a text separated by commas or, like scopes, spaces."""
    if isinstance(claim, str):
        return patterns(claim.replace(" ", ","))
    return tuple(x for x in claim if isinstance(x, str)) if isinstance(claim, list) else ()
