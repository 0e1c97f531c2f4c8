"""Headers that a client writes get into no link, page or redirect, unless they are an address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.app import create_app
from api.http.links import service_root
from tests.faults.server import raw, serving
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import Server, serve

MARK = "evil"
"""Part of each hostile value: it must be nowhere in an answer."""
VALUES = (
    'evil"><script>alert(1)</script>',
    "evil'onload='x",
    "evil.org/path",
    "evil.org?x=1",
    "evil.org#x",
    "evil.org\\@x",
    "user:evil@x.org",
    "evil.org:99999",
    "evil.org:0",
    "evil.org:-1",
    "evil.org:80:80",
    "evil .org",
    "evil\t.org",
    "evil%0d%0aX: y",
    "javascript:evil",
    "//evil.org",
    "http://evil.org",
    "[evil]",
    "[::1",
    "[::1]evil",
    "evil.org]",
    "evil" + "a" * 5000,
    "evilé.org",
    "evil\x7f",
    "{evil}",
    "${evil}",
    "evil<",
    "&evil;",
    "evil,",
    ",evil",
    "evil;",
    "[fe80::1%evil]",
)
PLACES = (
    "X-Forwarded-Host: {}",
    'Forwarded: host="{}"',
    "Forwarded: host={};proto={}",
    "Forwarded: for=x;host={}, host=y",
    "X-Forwarded-Proto: {}",
    "X-Forwarded-Port: {}",
    "X-Forwarded-Prefix: {}",
    "X-Forwarded-Prefix: /a/../{}",
    "X-Request-Id: {}",
    "Forwarded: proto={}",
)
PAGES = (
    "/",
    "/search?limit=1",
    "/collections/tessera-v1",
    "/coverage",
    "/browser/",
    "/api.html",
    "/api",
    "/collections/",
    "/source/v1/2024/grid_0.15_52.05",
    "/nope",
)
# Names that are hosts as they stand: a proxy may call itself so.
HOSTS = {"evil,", "evil;", ",evil"}
IS_PATH = re.compile(r"[A-Za-z0-9_~%@+-][A-Za-z0-9_.~%@+-]*(/[A-Za-z0-9_.~%@+-]+)*/?")
"""What a proxy may call a prefix; its slash in front may be missing."""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("headers")
    build_from(folder / "catalog", write_manifest(folder, 2024, patch(0, 52, 3, 3)))
    return folder / "catalog"


@pytest.fixture(scope="module")
def server(catalog: Path) -> Iterator[Server]:
    with serve(create_app(catalog)) as running:
        yield running


def _ask(port: int, path: str, *lines: str, host: str = "good.org") -> str:
    """Send a request as it is: a client library would refuse most of this."""
    head = "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *lines, "Connection: close", "", ""])
    return raw(port, head.encode("utf-8", "surrogateescape")).decode("latin-1")


@pytest.mark.parametrize("place", PLACES)
def test_forwarded_headers_inject_nothing(server: Server, place: str) -> None:
    for value in VALUES:
        line = place.format(value, value)
        if value in HOSTS and "ost" in place:
            continue
        for path in PAGES if value == VALUES[0] else PAGES[:1]:
            answer = _ask(server.port, path, line)
            assert answer.startswith("HTTP/1.1 "), (line, path)
            first = value.split(",")[0].strip()
            if "Prefix" in place and IS_PATH.fullmatch(first):  # a path as it stands, on this host only
                answer = answer.replace(f"//good.org/{first}", "//good.org")
            assert MARK not in answer, (line, path, answer[:300])
            assert "javascript:" not in answer.lower()


@pytest.mark.parametrize("value", VALUES)
def test_a_hostile_host_is_not_repeated(server: Server, value: str) -> None:
    """Also without a proxy, also in the redirects that the framework makes."""
    for path in PAGES:
        answer = _ask(server.port, path, host=value)
        assert answer.startswith("HTTP/1.1 ")
        assert MARK not in answer, (path, answer[:300])


def test_lines_cannot_be_added(server: Server) -> None:
    """CR and LF end a header on the wire; what follows is a header of the request, not of the answer."""
    for name in ("X-Forwarded-Host", "Forwarded", "X-Request-Id", "X-Forwarded-Prefix"):
        for end in ("\r\n", "\n", "\r", "\0", "\r\n "):
            answer = _ask(server.port, "/", f"{name}: a.org{end}Set-Cookie: evil=1")
            assert "set-cookie" not in answer.lower()
            assert MARK not in answer


def test_lists_ports_and_ipv6(server: Server) -> None:
    """What is an address is used: the first of a list, IPv6, a port in its range."""
    for line, root in (
        ("X-Forwarded-Host: a.org, evil.org", "http://a.org"),
        ("Forwarded: host=a.org, host=evil.org", "http://a.org"),
        ('Forwarded: host="[2001:db8::1]:8443";proto=https', "https://[2001:db8::1]:8443"),
        ("X-Forwarded-Port: 65535", "http://good.org:65535"),
        ("X-Forwarded-Port: 65536", "http://good.org"),
        ("X-Forwarded-Host: a.org:65536", "http://good.org"),
        ("X-Forwarded-Prefix: /../..", "http://good.org"),
        ("X-Forwarded-Prefix: /" + "a" * 600, "http://good.org"),
    ):
        assert f'"href":"{root}/collections"' in _ask(server.port, "/", line), line


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(
        [
            b"host",
            b"forwarded",
            b"x-forwarded-host",
            b"x-forwarded-port",
            b"x-forwarded-prefix",
            b"x-forwarded-proto",
        ]
    ),
    value=st.binary(max_size=60)
    | st.text(alphabet="host=proto;,:[]\"'/<> .%evil0123", max_size=60).map(str.encode),
)
def test_no_bytes_make_a_link_that_is_none(name: bytes, value: bytes) -> None:
    scope = {"type": "http", "scheme": "http", "server": ("127.0.0.1", 80), "headers": [(name, value)]}
    root, prefix = service_root(scope, "", True)
    assert not set(root) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%@+:/[]")
    assert root.startswith(("http://", "https://"))
    assert "/.." not in root
    assert root.count("//") == 1
    assert root.endswith(prefix)


def test_no_header_counts_where_none_is_trusted(catalog: Path) -> None:
    """In the served program too: uvicorn reads two of them itself."""
    with serving(catalog, TESSERA_STAC_TRUST_FORWARDED="false") as served:
        for line in (
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: evil.org",
            "Forwarded: host=evil.org;proto=https",
            "X-Forwarded-Port: 1",
            "X-Forwarded-Prefix: /evil",
        ):
            answer = _ask(served.port, "/", line)
            assert '"href":"http://good.org/collections"' in answer, line
            assert MARK not in answer


def test_two_hosts_are_refused(server: Server) -> None:
    """A proxy may have decided by the other one; on every kind of route."""
    for path in ("/", "/search", "/data/catalog.json", "/source/v1/", "/browser/", "/_mgmt/ping", "/nowhere"):
        for second in ("good.org", "evil.org"):
            answer = _ask(server.port, path, f"Host: {second}")
            assert answer.startswith("HTTP/1.1 400 "), (path, answer[:200])
            assert "more than one Host" in answer


LIES = (
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.org",
    "Forwarded: host=evil.org;proto=https",
    "X-Forwarded-Port: 1",
    "X-Forwarded-Prefix: /evil",
)


def test_only_trusted_proxies_are_believed(catalog: Path) -> None:
    """The test's own address is believed by default, and not where another proxy is named."""
    with serving(catalog, TESSERA_STAC_TRUSTED_PROXIES="192.0.2.0/24") as served:
        for line in LIES:
            answer = _ask(served.port, "/", line)
            assert '"href":"http://good.org/collections"' in answer, line
            assert MARK not in answer
            assert "x-forwarded" not in answer.lower()
            redirect = _ask(served.port, "/data", line)
            assert re.search(r"(?im)^location: /data/\r$", redirect), redirect[:300]


def test_the_root_url_is_what_every_link_begins_with(catalog: Path) -> None:
    """Nobody is asked for it, so it is the same in every cache."""
    with serving(catalog, TESSERA_STAC_ROOT_URL="https://stac.example.org/stac") as served:
        for line in (*LIES, "X-Nothing: 1"):
            for host in ("good.org", "evil.org:1"):
                answer = _ask(served.port, "/", line, host=host)
                assert '"href":"https://stac.example.org/stac/collections"' in answer, line
                assert "good.org" not in answer
                assert MARK not in answer
                assert "x-forwarded" not in answer.lower()
        assert re.search(r"(?im)^location: /stac/data/\r$", _ask(served.port, "/data"))


def test_redirects_are_relative_and_responses_vary(server: Server) -> None:
    """A cache between proxy and server keeps one copy for each address of the service."""
    answer = _ask(server.port, "/data", "X-Forwarded-Host: evil.org", "X-Forwarded-Prefix: /stac")
    assert re.search(r"(?im)^location: /stac/data/\r$", answer), answer[:300]
    for path in ("/", "/search?limit=1", "/coverage", "/api.html", "/source/v1/"):
        answer = _ask(server.port, path)
        (vary,) = [x for x in answer.splitlines() if x.lower().startswith("vary: forwarded")]
        assert {"X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix"} <= set(
            vary[6:].split(", ")
        )
    for path in ("//evil.org/data", "//evil.org//data/..", "///evil.org/collections/"):
        answer = _ask(server.port, path)
        assert not re.search(r"(?im)^location: (//|\w+:)", answer), answer[:300]
