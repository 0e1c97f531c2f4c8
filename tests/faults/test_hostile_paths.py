"""Nothing is served but what is meant to be, however its path is written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.app import create_app
from tests.faults.server import raw
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import Server, serve

SECRET = b"TOP-SECRET"
UP = (
    "..",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%252e%252e",
    "..%00",
    "..;",
    "..%5c",
    "..\\",
    "%c0%ae%c0%ae",
    "%e0%80%ae",
    "．．",
    "…",
)
SLASH = ("/", "%2f", "%5c", "\\", "//", "/./", "%252f", "%c0%af", "／")
TARGETS = (
    "secret.txt",
    "outside/secret.txt",
    "etc/passwd",
    ".versions/.lock",
    ".current/index.sqlite",
    ".versions/1/.state",
    ".hidden",
    "cogs/.hidden",
    "cogs/out.txt",
    "cogs/away/secret.txt",
    "source-twin/secret.txt",
)
MOUNTS = (
    "/data/",
    "/data/cogs/",
    "/source/",
    "/source/v1/",
    "/source/v1/2024/grid_0.15_52.05/",
    "/browser/",
    "/coverage/",
    "/collections/tessera-v1/tiles/",
    "/collections/tessera-v1/items/",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    top = tmp_path_factory.mktemp("paths")
    for folder in ("outside", "source-twin", "source"):
        (top / folder).mkdir()
        (top / folder / "secret.txt").write_bytes(SECRET)
    (top / "secret.txt").write_bytes(SECRET)
    catalog = top / "catalog"
    build_from(catalog, write_manifest(top / "m", 2024, patch(0, 52, 3, 3)), source_root=str(top / "source"))
    cogs = catalog / "cogs"
    cogs.mkdir()
    (cogs / "open.txt").write_text("meant to be read")
    (catalog / ".hidden").write_bytes(SECRET)
    (cogs / ".hidden").write_bytes(SECRET)
    (cogs / "out.txt").symlink_to(top / "secret.txt")
    (cogs / "away").symlink_to(top / "outside")
    with serve(create_app(catalog)) as running:
        yield running


def _get(server: Server, path: str) -> bytes:
    data = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("utf-8", "surrogateescape")
    return raw(server.port, data)


def _harmless(server: Server, path: str) -> None:
    answer = _get(server, path)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] in (b"200", b"301", b"307", b"400", b"404", b"405", b"414", b"431"), (path, head)
    assert SECRET not in answer, path
    assert b"root:" not in body, path
    assert not body.startswith(b"SQLite format 3"), path


def test_what_is_meant_is_served(server: Server) -> None:
    assert _get(server, "/data/cogs/open.txt").endswith(b"meant to be read")
    assert _get(server, "/data/catalog.json").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("mount", MOUNTS)
def test_no_way_up_or_to_hidden_names(server: Server, mount: str) -> None:
    for target in TARGETS:
        _harmless(server, mount + target)
        for up in UP:
            for slash in SLASH if target == "secret.txt" else SLASH[:2]:
                for depth in (1, 2, 4):
                    _harmless(server, mount + (up + slash) * depth + target.replace("/", slash))
    for path in (
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "file:///etc/passwd",
        "C:\\boot.ini",
        "~root/.bashrc",
        "%00",
        "a%00.tif",
        "x" * 5000,
        "a/" * 3000,
        "é" * 300,
        "%ff%fe",
        "%",
        "%zz",
        "*",
        "?",
        "con",
        "cogs/open.txt/",
        "cogs//open.txt",
        "cogs/./open.txt",
        "cogs/open.txt%20",
        "cogs/open.txt%00",
    ):
        answer = _get(server, mount + path)
        assert answer.split()[1] not in (b"500", b"503"), path
        assert SECRET not in answer
        assert b"root:" not in answer


_segments = st.sampled_from(
    [
        *UP,
        "cogs",
        "away",
        "out.txt",
        "secret.txt",
        ".versions",
        "1",
        ".current",
        "index.sqlite",
        "v1",
        "2024",
        "grid_0.15_52.05",
        "tessera-v1",
        "",
        ".",
        "%00",
        "preview.png",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mount=st.sampled_from(MOUNTS),
    parts=st.lists(st.tuples(_segments | st.text(max_size=6), st.sampled_from(SLASH)), max_size=6),
)
def test_no_path_leads_out(server: Server, mount: str, parts: list[tuple[str, str]]) -> None:
    path = mount + "".join(name + slash for name, slash in parts)
    path = "".join(c if c > " " and c != "\x7f" else f"%{ord(c):02x}" for c in path)
    answer = _get(server, path.encode("utf-8", "replace").decode())
    assert SECRET not in answer, path
    assert answer.split()[1] not in (b"500", b"503"), (path, answer[:200])
