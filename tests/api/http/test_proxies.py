"""The address of a client behind proxies: what it says itself of it does not count."""

from __future__ import annotations

import pytest

from api.http.proxies import Proxies
from api.settings import Settings

TRUSTED = Settings().trusted_proxies
XFF, STANDARD = b"x-forwarded-for", b"forwarded"


@pytest.mark.parametrize(
    ("peer", "header", "value", "client"),
    [
        ("203.0.113.9", XFF, b"6.6.6.6", "203.0.113.9"),  # not a proxy
        ("127.0.0.1", XFF, b"203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", XFF, b"6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", XFF, b"6.6.6.6, 203.0.113.9, 10.0.0.3", "203.0.113.9"),
        ("127.0.0.1", XFF, b"203.0.113.9:4711", "203.0.113.9"),
        ("127.0.0.1", XFF, b"nonsense", "127.0.0.1"),
        ("127.0.0.1", XFF, b"203.0.113.9, nonsense, 10.0.0.3", "10.0.0.3"),
        ("127.0.0.1", XFF, b"10.0.0.4, 10.0.0.3", "10.0.0.4"),
        ("127.0.0.1", XFF, b"", "127.0.0.1"),
        ("::ffff:10.1.2.3", XFF, b"203.0.113.9", "203.0.113.9"),
        ("::1", STANDARD, b'for="[2001:db8::7]:4711";proto=https', "2001:db8::7"),
        ("::1", STANDARD, b"for=6.6.6.6, for=203.0.113.9;by=10.0.0.1", "203.0.113.9"),
        ("172.32.0.1", XFF, b"6.6.6.6", "172.32.0.1"),  # just outside of the private range
    ],
)
def test_the_last_address_that_is_no_proxy(peer: str, header: bytes, value: bytes, client: str) -> None:
    proxies = Proxies(TRUSTED)
    assert proxies.client({"type": "http", "client": (peer, 5)}, {header: value}) == client


@pytest.mark.parametrize(
    ("trusted", "peer", "believed"),
    [
        (TRUSTED, ("127.0.0.1", 1), True),
        (TRUSTED, ("fd12::1", 1), True),
        (TRUSTED, ("fe80::1%eth0", 1), False),
        (TRUSTED, ("2001:db8::1", 1), False),
        (TRUSTED, None, True),  # a Unix socket
        ("", None, False),
        ("", ("127.0.0.1", 1), False),
        ("192.0.2.1", ("192.0.2.1", 1), True),
        ("192.0.2.1", ("192.0.2.2", 1), False),
    ],
)
def test_who_is_believed(trusted: str, peer: tuple[str, int] | None, believed: bool) -> None:
    assert Proxies(trusted).believes({"type": "http", "client": peer}) is believed


def test_settings_name_what_is_no_network() -> None:
    with pytest.raises(ValueError, match=r"'10\.0\.0\.0/99'"):
        Settings(trusted_proxies="127.0.0.1,10.0.0.0/99")
    with pytest.raises(ValueError, match="root_url contains the path"):
        Settings(root_url="https://a.org/stac", root_path="/stac")
    with pytest.raises(ValueError, match="root_url"):
        Settings(root_url="a.org")
