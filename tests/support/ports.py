"""Ports of this machine that a test's server has for itself."""

from __future__ import annotations

import itertools
import os
import random
import socket

_FIRST, _LAST = 20_000, 32_767
"""Below those that Linux gives to the other ends of connections, and to whoever asks for any port."""


def _stripe() -> list[int]:
    """Return the ports of this process among those that run tests side by side."""
    mine = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = list(range(_FIRST + mine, _LAST + 1, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
    start = random.SystemRandom().randrange(len(ports))  # others may run tests on this machine
    return ports[start:] + ports[:start]


_ports = itertools.cycle(_stripe())


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens at, and that this process has not had before.

    Between asking the system for any free port and a server's start another process may be given the
    same one. And what clients in this process remember of an address must not be another server's.
    """
    for port in _ports:
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
