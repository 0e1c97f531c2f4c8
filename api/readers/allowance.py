"""How often one client may ask for what is expensive."""

from __future__ import annotations

import math
import re
import time
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

_EXPENSIVE = re.compile(
    r"(?:/.*)?/(?:search|aggregate|items|points|zonal|position|area|login|[^/]+\.png)|/source/.+\.(?:vrt|tif)"
)
_CLIENTS = 20_000


class Allowance:
    """A token bucket per client, in this process.

    Parameters
    ----------
    rate
        Requests per second that a client may send on average; 0 is no limit.
    burst
        Requests that it may send at once.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, path: str, *, anyway: bool = False) -> int:
        """Count a request; return 0, or after how many seconds the client may send it.

        Parameters
        ----------
        client
            Its address. Those of an IPv6 network of 64 bits are one client, which chooses among them.
        path
            The path within the service; only searches, pages of items, counts, vectors, images and computed
            files count.
        anyway
            Count it whatever its path.
        """
        if not self._rate or not client or not (anyway or _EXPENSIVE.fullmatch(path)):
            return 0
        key, now = _network(client), time.monotonic()
        left, then = self._left.pop(key, (self._burst, now))
        left = min(left + (now - then) * self._rate, self._burst)
        if enough := left >= 1:
            left -= 1
        self._left[key] = left, now
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return 0 if enough else max(math.ceil((1 - left) / self._rate), 1)


def _network(client: str) -> str:
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return address.exploded[:19]
    return str(address)
