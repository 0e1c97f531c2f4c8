"""RangedFiles: HTTP's rules for parts of files, and no way out of the folder."""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Iterator
from email.parser import BytesParser
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from api.files import folder as folder_files
from api.files import respond
from api.files.folder import FileContent, RangedFiles, immutable_where, media_type, visible
from api.files.ranges import ContentChangedError, RangeError, Span, parse_range
from catalog_builder.storage.headers import IMMUTABLE, REVALIDATE
from tests.support.http_server import Server, serve

SMALL = bytes(range(256)) * 4
LARGE = bytes(i % 251 for i in range(3 * respond.CHUNK + 17))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("served")
    (top / "outside.txt").write_text("secret")
    root = top / "root"
    (root / "a~b").mkdir(parents=True)
    (root / ".versions" / "3").mkdir(parents=True)
    (root / "a~b" / "small.tif").write_bytes(SMALL)
    (root / "large.bin").write_bytes(LARGE)
    (root / "empty.json").write_bytes(b"")
    (root / ".hidden").write_text("hidden")
    (root / ".versions" / "3" / "item.json").write_text("{}")
    (root / "current").symlink_to(".versions/3")
    (root / "out").symlink_to(top)
    (root / "out.txt").symlink_to("../outside.txt")
    (root / "loop").symlink_to("loop")
    (root / "gone").symlink_to("nowhere")
    (top / "root-twin").mkdir()
    (top / "root-twin" / "x.txt").write_text("secret")
    (root / "twin.txt").symlink_to("../root-twin/x.txt")
    os.mkfifo(root / "fifo")
    for name in ("a~b/small.tif", "large.bin"):
        os.utime(root / name, (1.7e9, 1.7e9))
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    files = RangedFiles(folder, immutable_where(r"a~b/.*"))
    with serve(Starlette(routes=[Mount("/data", files)])) as running:
        yield running


@pytest.fixture(scope="module")
def web(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/data/", trust_env=False) as client:
        yield client


def raw_request(server: Server, text: str) -> bytes:
    """Send bytes as they are: httpx would tidy the path."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(text.encode("latin-1"))
        answer = b""
        while part := sock.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=1000-", (1000, 1024)),
        ("bytes=-5", (1019, 1024)),
        ("bytes=-5000", (0, 1024)),
        ("bytes=1020-999999999999999999", (1020, 1024)),
        ("BYTES = 3-4", (3, 5)),
        ("bytes=5-6,", (5, 7)),
        ("bytes=5-6, 2000-2001", (5, 7)),  # what cannot be satisfied is dropped
        ("bytes=5-9, 8-20", (5, 21)),  # what overlaps is merged
    ],
)
def test_one_range(web: httpx.Client, header: str, span: tuple[int, int]) -> None:
    answer = web.get("a~b/small.tif", headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == SMALL[slice(*span)]
    assert answer.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/1024"
    assert answer.headers["content-length"] == str(span[1] - span[0])
    assert answer.headers["content-type"] == "image/tiff; application=geotiff"
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    "header",
    [
        "bytes=1024-",
        "bytes=5000-6000",
        "bytes=-0",
        "bytes=-",
        "bytes=",
        "bytes=a-b",
        "bytes=9-3",
        "bytes=1",
        "bytes=--5",
        "bytes=1-2-3",
        "bytes=٣-٤".encode().decode("latin-1"),
        "bytes=" + "9" * 5000 + "-",
        "bytes=" + ",".join(["0-0"] * 257),
    ],
)
def test_unsatisfiable(web: httpx.Client, header: str) -> None:
    answer = web.get("a~b/small.tif", headers={"Range": header.encode("latin-1")})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */1024"
    assert answer.json()["code"] == "RangeNotSatisfiable"


@pytest.mark.parametrize("header", ["items=0-5", "nonsense", "0-5", ""])
def test_other_units_are_ignored(web: httpx.Client, header: str) -> None:
    answer = web.get("a~b/small.tif", headers={"Range": header})
    assert (answer.status_code, answer.content) == (200, SMALL)


def test_empty_file(web: httpx.Client) -> None:
    answer = web.get("empty.json")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    assert web.get("empty.json", headers={"Range": "bytes=0-"}).status_code == 416


@pytest.mark.parametrize(
    ("name", "body", "spans"),
    [
        ("a~b/small.tif", SMALL, [(0, 1), (100, 200), (1000, 1024)]),
        ("a~b/small.tif", SMALL, [(500, 600), (0, 10)]),  # in the order asked for
        ("a~b/small.tif", SMALL, [(0, 10), (10, 20)]),  # touching is not overlapping
        ("large.bin", LARGE, [(5, respond.CHUNK + 9), (2 * respond.CHUNK, len(LARGE))]),
    ],
)
def test_several_ranges(web: httpx.Client, name: str, body: bytes, spans: list[tuple[int, int]]) -> None:
    header = "bytes=" + ",".join(f"{a}-{b - 1}" for a, b in spans)
    answer = web.get(name, headers={"Range": header})
    assert answer.status_code == 206
    assert int(answer.headers["content-length"]) == len(answer.content)
    mime = b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content
    parts = BytesParser().parsebytes(mime).get_payload()
    assert [p["Content-Range"] for p in parts] == [f"bytes {a}-{b - 1}/{len(body)}" for a, b in spans]
    assert [p["Content-Type"] for p in parts] == [media_type(name)] * len(spans)
    # the parser decodes text: look for the bytes themselves
    sections = answer.content.split(b"--" + answer.headers["content-type"].split("boundary=")[1].encode())
    assert [s.split(b"\r\n\r\n", 1)[1][:-2] for s in sections[1:-1]] == [body[a:b] for a, b in spans]


def test_a_range_bomb_is_no_larger_than_the_file(web: httpx.Client) -> None:
    answer = web.get("large.bin", headers={"Range": "bytes=" + ",".join(["0-"] * 256)})
    assert (answer.status_code, answer.content) == (206, LARGE)


@given(
    size=st.integers(0, 60),
    asked=st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, 70)), st.one_of(st.none(), st.integers(0, 70))),
        min_size=1,
        max_size=6,
    ),
)
def test_parse_range_covers_what_was_asked(size: int, asked: list[tuple[int | None, int | None]]) -> None:
    wanted: set[int] = set()
    valid = True
    for first, last in asked:
        if first is None and last is None:
            valid = False
        elif first is None:
            wanted |= set(range(max(size - last, 0), size))  # type: ignore[operator]
        elif last is not None and last < first:
            valid = False
        else:
            wanted |= set(range(first, size if last is None else min(last + 1, size)))
    text = ",".join(f"{'' if a is None else a}-{'' if b is None else b}" for a, b in asked)
    if not valid or not wanted:
        with pytest.raises(RangeError):
            parse_range(f"bytes={text}", size)
        return
    spans = parse_range(f"bytes={text}", size)
    assert spans is not None
    covered = [i for span in spans for i in range(*span)]
    assert len(covered) == len(set(covered))
    assert set(covered) == wanted
    assert all(0 <= a < b <= size for a, b in spans)


def test_whole_file_and_head(web: httpx.Client) -> None:
    for name, body in (("a~b/small.tif", SMALL), ("large.bin", LARGE)):
        answer = web.get(name)
        assert (answer.status_code, answer.content) == (200, body)
        head = web.head(name, headers={"Range": "bytes=0-5"})  # RFC 9110: a range is for GET only
        assert (head.status_code, head.content) == (200, b"")
        same = {"content-length", "etag", "last-modified", "content-type", "cache-control", "accept-ranges"}
        assert {k: head.headers[k] for k in same} == {k: answer.headers[k] for k in same}
    answer = web.get("large.bin", headers={"Range": f"bytes=7-{len(LARGE) - 3}"})
    assert answer.content == LARGE[7:-2]


def test_cache_control(web: httpx.Client) -> None:
    assert web.get("a~b/small.tif").headers["cache-control"] == IMMUTABLE
    assert web.get("current/item.json").headers["cache-control"] == REVALIDATE
    assert web.get("nothing").headers["cache-control"] == "no-store"


def test_preconditions(web: httpx.Client) -> None:
    first = web.get("a~b/small.tif")
    etag, date = first.headers["etag"], first.headers["last-modified"]
    assert etag.startswith('"')
    assert date == "Tue, 14 Nov 2023 22:13:20 GMT"
    early, late = formatdate(0, usegmt=True), formatdate(time.time() + 1e6, usegmt=True)

    def status(**headers: str) -> int:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        answer = web.get("a~b/small.tif", headers=named)
        assert (answer.content == b"") == (answer.status_code in (304, 412))
        return answer.status_code

    assert status(if_none_match=etag) == 304
    assert status(if_none_match=f'"x", W/{etag}') == 304
    assert status(if_none_match="*") == 304
    assert status(if_none_match='"x"', if_modified_since=late) == 200  # the tag decides
    assert status(if_modified_since=date) == 304
    assert status(if_modified_since=late) == 304
    assert status(if_modified_since=early) == 200
    assert status(if_modified_since="yesterday") == 200
    assert status(if_match=etag) == 200
    assert status(if_match="*") == 200
    assert status(if_match='"x"') == 412
    assert status(if_match=f"W/{etag}") == 412
    assert status(if_unmodified_since=date) == 200
    assert status(if_unmodified_since=late) == 200
    assert status(if_unmodified_since=early) == 412
    assert status(if_unmodified_since="nonsense") == 200
    assert status(if_none_match=etag, range="bytes=0-1") == 304
    assert status(range="bytes=0-1", if_range=etag) == 206
    assert status(range="bytes=0-1", if_range=date) == 206
    assert status(range="bytes=0-1", if_range='"x"') == 200
    assert status(range="bytes=0-1", if_range=f"W/{etag}") == 200
    assert status(range="bytes=5000-", if_range='"x"') == 200
    again = web.get("a~b/small.tif", headers={"If-None-Match": etag})
    assert (again.headers["etag"], again.headers["cache-control"]) == (etag, IMMUTABLE)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "nothing",
        "a~b",
        "a~b/",
        "a~b//small.tif",
        "a~b/./small.tif",
        "large.bin/",
        "large.bin/x",
        "../outside.txt",
        "..%2foutside.txt",
        "%2e%2e/outside.txt",
        "%2e%2e%2foutside.txt",
        "%252e%252e/outside.txt",
        "a~b/..%2f../outside.txt",
        "a~b/../../outside.txt",
        "a~b%2fsmall.tif",
        "..\\outside.txt",
        "..%5coutside.txt",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "large.bin%00",
        "large.bin%00.tif",
        "large.bin%0a",
        "out/outside.txt",
        "out.txt",
        "twin.txt",
        ".hidden",
        "%2ehidden",
        ".versions/3/item.json",
        "current/../large.bin",
        "loop",
        "gone",
        "fifo",
        "%ff%fe",
        "x" * 300,
        "/".join(["x"] * 3000),
    ],
)
def test_no_way_out(server: Server, path: str) -> None:
    answer = raw_request(server, f"GET /data/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404"), answer[:300]
    assert b"secret" not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize("path", ["a~b/small.tif", "a%7Eb/small.tif", "a%7eb/%73mall.tif"])
def test_encoded_names(web: httpx.Client, server: Server, path: str) -> None:
    answer = raw_request(server, f"GET /data/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(SMALL)


def test_a_symlink_inside_is_followed(web: httpx.Client) -> None:
    assert web.get("current/item.json").text == "{}"


@pytest.mark.service
@pytest.mark.parametrize("path", ["/stac/data/large.bin", "/data/large.bin"])
def test_behind_a_proxy(folder: Path, path: str) -> None:
    """The proxy keeps its prefix in the path, or strips it; ``root_path`` has it either way."""
    inner = Starlette(routes=[Mount("/data", RangedFiles(folder))])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await inner({**scope, "root_path": "/stac"}, receive, send)

    with serve(app) as running:
        answer = httpx.get(f"{running.url}{path}", headers={"Range": "bytes=0-9"}, trust_env=False)
    assert (answer.status_code, answer.content) == (206, LARGE[:10])


def test_cross_origin(web: httpx.Client) -> None:
    for answer in (web.get("large.bin", headers={"Range": "bytes=0-9"}), web.get("x"), web.head("large.bin")):
        assert answer.headers["access-control-allow-origin"] == "*"
        for name in ("Accept-Ranges", "Content-Range", "Content-Length", "ETag", "Last-Modified"):
            assert name in answer.headers["access-control-expose-headers"]
    asked = {"Origin": "https://x.org", "Access-Control-Request-Method": "GET"}
    answer = web.options("large.bin", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    for name in ("Range", "If-Range", "If-None-Match"):
        assert name in answer.headers["access-control-allow-headers"]
    # as /search does: whatever a client sends beside them must not shut it out
    asked["Access-Control-Request-Headers"] = "range,traceparent,x-client"
    answer = web.options("large.bin", headers=asked)
    assert answer.headers["access-control-allow-headers"] == "range,traceparent,x-client"
    assert answer.headers["vary"] == "Access-Control-Request-Headers"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"])
def test_methods_that_write(web: httpx.Client, method: str) -> None:
    answer = web.request(method, "large.bin")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.service
def test_a_file_that_shrinks_while_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "f.bin"
    path.write_bytes(bytes(50_000_000))
    with serve(RangedFiles(tmp_path)) as running, httpx.Client(trust_env=False) as client:

        def fetch() -> int:
            got = 0
            with client.stream("GET", f"{running.url}/f.bin") as answer:
                for i, part in enumerate(answer.iter_raw(65536)):
                    got += len(part)
                    if i == 0:
                        os.truncate(path, 30_000_000)
            return got

        with pytest.raises(httpx.RemoteProtocolError):  # shorter than announced: an error, not wrong data
            fetch()
        assert running.log[-1].sent < 50_000_000


@pytest.mark.service
def test_a_file_that_is_rewritten_while_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "f.bin"
    path.write_bytes(bytes(50_000_000))
    with serve(RangedFiles(tmp_path)) as running, httpx.Client(trust_env=False) as client:

        def fetch() -> None:
            with client.stream("GET", f"{running.url}/f.bin") as answer:
                for i, _ in enumerate(answer.iter_raw(65536)):
                    if i == 0:
                        time.sleep(0.02)
                        path.write_bytes(b"x" * 50_000_000)

        with pytest.raises(httpx.RemoteProtocolError):
            fetch()


@pytest.mark.service
def test_a_file_that_vanishes_is_sent_whole(tmp_path: Path) -> None:
    path = tmp_path / "f.bin"
    path.write_bytes(LARGE * 20)
    with (
        serve(RangedFiles(tmp_path)) as running,
        httpx.stream("GET", f"{running.url}/f.bin", trust_env=False) as answer,
    ):
        parts = answer.iter_raw(65536)
        body = next(parts)
        path.unlink()
        assert body + b"".join(parts) == LARGE * 20


def test_small_reads_that_cannot_be_right(tmp_path: Path) -> None:
    path = tmp_path / "f.bin"
    path.write_bytes(SMALL)
    with path.open("r+b") as file:
        info = os.fstat(file.fileno())
        content = FileContent(file.fileno(), info.st_size, info.st_mtime_ns)
        assert content.read(Span(3, 9)) == SMALL[3:9]
        assert content.read_now(Span(3, 9)) in (SMALL[3:9], None)
        file.truncate(100)
        with pytest.raises(ContentChangedError):
            content.read(Span(0, 50))
        same_times = FileContent(file.fileno(), 100, os.fstat(file.fileno()).st_mtime_ns)
        with pytest.raises(ContentChangedError, match="ends at byte 100"):
            same_times.read(Span(90, 110))


@pytest.mark.parametrize("nowait", [0, folder_files._NOWAIT])
def test_with_and_without_reads_on_the_event_loop(
    web: httpx.Client, monkeypatch: pytest.MonkeyPatch, nowait: int
) -> None:
    monkeypatch.setattr(folder_files, "_NOWAIT", nowait)
    assert web.get("large.bin").content == LARGE
    assert web.get("large.bin", headers={"Range": "bytes=5-70000"}).content == LARGE[5:70001]


@pytest.mark.service
def test_a_client_that_leaves_stops_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "f.bin"
    with path.open("wb") as file:
        file.truncate(2_000_000_000)  # sparse
    with serve(RangedFiles(tmp_path)) as running:
        with socket.create_connection(("127.0.0.1", running.port)) as sock:
            sock.sendall(b"GET /f.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            sock.recv(65536)
        sent = -1
        while running.sent != sent:
            sent = running.sent
            time.sleep(0.5)
        assert sent < 200_000_000


def test_no_file_descriptor_left(web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(*_args: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(folder_files.os, "open", no_more)
    answer = web.get("large.bin")
    monkeypatch.undo()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_no_descriptor_is_leaked(web: httpx.Client) -> None:
    count = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        web.get("large.bin", headers={"Range": "bytes=0-9"})
        web.get("large.bin", headers={"Range": "bytes=900000000-"})
        web.get("a~b")
    assert len(list(Path("/proc/self/fd").iterdir())) <= count + 2


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a/b.TIF", "image/tiff; application=geotiff"),
        ("a.parquet", "application/vnd.apache.parquet"),
        ("a_scales.npy", "application/x-npy"),
        ("a.vrt", "image/x.vrt"),
        ("collection.json", "application/json"),
        ("README", "application/octet-stream"),
    ],
)
def test_media_types(name: str, kind: str) -> None:
    assert media_type(name) == kind


def test_visible() -> None:
    assert visible("/a/b.tif") == "a/b.tif"
    assert visible("/a/b.tif", b"/data/a%2Fb.tif") is None
    assert visible("/..") is None


@pytest.mark.service
def test_folders_are_listed_only_where_asked(tmp_path: Path) -> None:
    """GDAL reads such a page before it looks for sidecar files; anything else stays 404."""
    (tmp_path / "tiles" / "a").mkdir(parents=True)
    (tmp_path / "tiles" / "a" / "x&y.tif").write_bytes(b"12345")
    (tmp_path / "tiles" / "a" / ".hidden").write_bytes(b"1")
    (tmp_path / "tiles" / "a" / "below").mkdir()
    (tmp_path / "tiles" / "out").symlink_to(tmp_path.parent)
    with serve(RangedFiles(tmp_path, listed="tiles/[^/]+")) as server:
        page = httpx.get(f"{server.url}/tiles/a/", trust_env=False)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert re.findall(r'<a href="(.*)">.* (\d+)$', page.text, re.MULTILINE) == [("x%26y.tif", "5")]
        for path in (
            "/",
            "/tiles/",
            "/tiles/a",
            "/tiles/none/",
            "/tiles/a/below/",
            "/tiles/out/",
            "/tiles/a//",
        ):
            assert httpx.get(server.url + path, trust_env=False).status_code == 404, path
