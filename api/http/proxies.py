"""Which proxies are believed, and the address of the client behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address

from starlette.types import Scope

from api.settings import networks

_FOR = re.compile(rb"for=\"?(\[[0-9A-Fa-f:.]+\]|[^\s\";,:]+)", re.IGNORECASE)


class Proxies:
    """The proxies in front of the server.

    Parameters
    ----------
    trusted
        Networks whose forwarding headers are believed, as :func:`api.settings.networks` parses them. A
        connection by a Unix socket, which has no address, comes from this machine and is believed if any
        network is.
    """

    def __init__(self, trusted: str) -> None:
        found = networks(trusted)

        @lru_cache(maxsize=4096)
        def is_trusted(host: str) -> bool:
            try:
                address = ip_address(host.partition("%")[0])
            except ValueError:  # a Unix socket, or a test's client with a name
                return bool(found) and host == ""
            mapped = getattr(address, "ipv4_mapped", None) or address
            return any(mapped in network for network in found)

        self._is_trusted = is_trusted

    def believes(self, scope: Scope) -> bool:
        """Return whether a request comes from one of them."""
        peer = scope.get("client")
        return self._is_trusted(peer[0] if peer else "")

    def client(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """Return the address of the client, empty if it has none.

        Each proxy adds the address that it was connected from at the end of ``X-Forwarded-For`` (or, if there
        is none, of ``Forwarded``), so the client is the last one that is no proxy of ours: what stands before
        it was sent by the client itself and may be made up.
        """
        peer = scope.get("client")
        found: str = peer[0] if peer else ""
        if not self._is_trusted(found):
            return found
        for said in reversed(_hops(headers)):
            try:
                ip_address(said)
            except ValueError:  # "unknown", or nonsense: what is known is the proxy that wrote it
                return found
            found = said
            if not self._is_trusted(said):
                return found
        return found


def _hops(headers: Mapping[bytes, bytes]) -> list[str]:
    """Return the addresses that forwarding headers name, the nearest last."""
    if forwarded_for := headers.get(b"x-forwarded-for"):
        parts = [part.strip().decode("latin-1") for part in forwarded_for.split(b",")]
    else:
        parts = [m[1].decode("latin-1") for m in _FOR.finditer(headers.get(b"forwarded", b""))]
    return [_bare(part) for part in parts]


def _bare(text: str) -> str:
    """Return an address without brackets and port.

    >>> _bare("[2001:db8::1]:80"), _bare("192.0.2.1:8080"), _bare("2001:db8::1")
    ('2001:db8::1', '192.0.2.1', '2001:db8::1')
    """
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
