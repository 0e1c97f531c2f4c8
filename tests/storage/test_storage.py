"""Local paths, a web server that misbehaves, and an S3 server."""

from __future__ import annotations

import http.server
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from catalog_builder import storage
from catalog_builder.errors import StorageError
from catalog_builder.storage import retry
from catalog_builder.storage.s3.client import forget

BODY = bytes(range(256)) * 20_000


class Web:
    """A loopback web server whose answers a test writes."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answer: Callable[[http.server.BaseHTTPRequestHandler], None] = lambda _: None
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.requests.append((self.command, {k.lower(): v for k, v in self.headers.items()}))
                web.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/a.npy"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(retry, "BACKOFF", 0.001)
    web = Web()
    yield web
    web.close()


def send(
    handler: http.server.BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    cut: int | None = None,
    **headers: str,
) -> None:
    """Answer; with ``cut`` only so many bytes are sent of those that were announced."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(body[:cut])
    if cut is not None:
        handler.close_connection = True


def test_web_read_size_and_user_agent(web: Web, tmp_path: Path) -> None:
    web.answer = lambda h: send(h, 200, BODY)
    assert storage.read_bytes(web.url) == BODY
    assert storage.size(web.url) == len(BODY)
    assert storage.exists(web.url)
    storage.fetch_to(web.url, tmp_path / "sub" / "a.npy")
    assert (tmp_path / "sub" / "a.npy").read_bytes() == BODY
    assert all(headers["user-agent"].startswith("tessera-stac/") for _, headers in web.requests)
    assert all(headers["accept-encoding"] == "identity" for _, headers in web.requests)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_web_refusals_name_the_address(web: Web, status: int) -> None:
    web.answer = lambda h: send(h, status)
    with pytest.raises(StorageError, match=rf"{web.url}: HTTP {status}"):
        storage.open_binary(web.url)
    assert len(web.requests) == 1
    if status == 403:
        with pytest.raises(StorageError, match="403"):
            storage.exists(web.url)
    else:
        assert not storage.exists(web.url)


def test_web_passing_failures_are_tried_again(web: Web) -> None:
    web.answer = lambda h: send(h, 503) if len(web.requests) < 3 else send(h, 200, BODY)
    assert storage.read_bytes(web.url) == BODY
    assert len(web.requests) == 3
    web.answer = lambda h: send(h, 503)
    with pytest.raises(StorageError, match="HTTP 503"):
        storage.read_bytes(web.url)
    assert len(web.requests) == 3 + retry.ATTEMPTS


def test_web_broken_download_is_resumed_where_it_broke(web: Web) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        cut = 3_000_000 if len(web.requests) == 1 else 100 if len(web.requests) == 2 else None
        content_range = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        send(handler, 206 if wanted else 200, BODY[start:], cut, ETag='"one"', Content_Range=content_range)

    web.answer = answer
    assert storage.read_bytes(web.url) == BODY
    assert len(web.requests) == 3
    assert all(headers["if-match"] == '"one"' for _, headers in web.requests[1:])


@pytest.mark.parametrize("etag", ["", '"one"'])
def test_web_a_download_that_stays_broken_is_never_a_short_file(web: Web, tmp_path: Path, etag: str) -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Range"):
            send(handler, 412)  # the file has changed meanwhile
        else:
            send(handler, 200, BODY, 3_000_000, **({"ETag": etag} if etag else {}))

    web.answer = answer
    with pytest.raises(StorageError, match=web.url):
        storage.fetch_to(web.url, tmp_path / "a.npy")
    assert list(tmp_path.iterdir()) == []


def test_web_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF", 0.001)
    with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:9/x"):
        storage.open_binary("http://127.0.0.1:9/x")
    with pytest.raises(StorageError, match="cannot be listed"):
        list(storage.list_files("http://127.0.0.1:9/"))
    with pytest.raises(StorageError, match="cannot write"):
        storage.put_file(tmp_path, "http://127.0.0.1:9/x")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


def write_half(address: str | Path) -> None:
    with storage.write_atomic(address) as path:
        path.write_bytes(b"half")
        raise RuntimeError("halfway")


@pytest.mark.parametrize("how", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_S3_ENDPOINT", "anonymous"])
def test_s3(endpoint: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    if how == "AWS_S3_ENDPOINT":  # GDAL's way: a host, and whether it speaks TLS
        monkeypatch.setenv("AWS_S3_ENDPOINT", endpoint)
        monkeypatch.setenv("AWS_HTTPS", "NO")
    else:
        monkeypatch.setenv(how if how != "anonymous" else "AWS_ENDPOINT_URL", f"http://{endpoint}")
    bucket = f"b{how.lower().replace('_', '')}"
    admin = boto3.client(
        "s3",
        endpoint_url=f"http://{endpoint}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106
    )
    admin.create_bucket(Bucket=bucket)
    if how == "anonymous":
        admin.put_object(Bucket=bucket, Key="x/a.tif", Body=BODY, ACL="public-read")
        admin.put_object(Bucket=bucket, Key="x/private.tif", Body=BODY)
        forget()
    else:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        forget()
        local = tmp_path / "a.tif"
        local.write_bytes(BODY)
        storage.put_file(
            local, f"s3://{bucket}/x/a.tif", content_type="image/tiff", cache_control="max-age=1"
        )
        head = admin.head_object(Bucket=bucket, Key="x/a.tif")
        assert (head["ContentType"], head["CacheControl"]) == ("image/tiff", "max-age=1")
        with storage.write_atomic(f"s3://{bucket}/x/b.json") as path:
            path.write_text("{}")
        with pytest.raises(RuntimeError, match="halfway"):
            write_half(f"s3://{bucket}/x/c.json")
        assert {e.path: e.size for e in storage.list_files(f"s3://{bucket}/x")} == {
            "a.tif": len(BODY),
            "b.json": 2,
        }
        assert storage.is_dir(f"s3://{bucket}/x")
        assert not storage.is_dir(f"s3://{bucket}/y")
    assert storage.read_bytes(f"s3://{bucket}/x/a.tif") == BODY
    assert storage.size(f"s3://{bucket}/x/a.tif") == len(BODY)
    if how == "anonymous":  # nothing was signed: what is not public is refused
        with pytest.raises(StorageError, match="403"):
            storage.open_binary(f"s3://{bucket}/x/private.tif")
    else:
        assert not storage.exists(f"s3://{bucket}/x/none")
        with pytest.raises(StorageError, match=f"s3://{bucket}/x/none"):
            storage.open_binary(f"s3://{bucket}/x/none")
    forget()


def test_write_atomic(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.parquet"
    with storage.write_atomic(target) as path:
        assert path.parent == target.parent
        assert path.suffix == ".parquet"
        assert path.name.startswith(".")
        path.write_bytes(b"one")
        assert not target.exists()
    assert target.read_bytes() == b"one"
    with pytest.raises(RuntimeError, match="halfway"):
        write_half(target)
    assert target.read_bytes() == b"one"
    assert list(target.parent.iterdir()) == [target]
    with pytest.raises(StorageError, match=r"a\.parquet/b: "), storage.write_atomic(target / "b"):
        pass
    (target.parent / "folder").mkdir()
    refused = pytest.raises(StorageError, match=r"folder: cannot be written \(Is a directory\)")
    with refused, storage.write_atomic(target.parent / "folder") as path:
        path.write_bytes(b"a file takes no folder's place")
    assert sorted(p.name for p in target.parent.iterdir()) == ["a.parquet", "folder"]


@pytest.mark.parametrize(("owner", "name"), [(Path, "replace"), (os, "fsync")])
def test_a_failure_at_the_end_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    target = tmp_path / "a.tif"
    target.write_bytes(b"what was there")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner, name, full)
    refused = pytest.raises(StorageError, match=r"a\.tif: cannot be written \(No space left on device\)")
    with refused, storage.write_atomic(target) as path:
        path.write_bytes(b"something else")
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"what was there"


def test_a_file_written_in_one_step_has_the_mode_that_the_user_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with storage.write_atomic(tmp_path / "a") as path:
            path.write_bytes(b"1")
        storage.put_file(tmp_path / "a", tmp_path / "b")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o640, 0o640]


@pytest.mark.service
@pytest.mark.parametrize("name", ["a.ndjson", "a.zarr"])
def test_a_lone_writer_clears_what_a_killed_one_left(tmp_path: Path, name: str) -> None:
    folder, target = name.endswith(".zarr"), tmp_path / name

    def write(path: Path, text: str) -> None:
        if folder:
            path.mkdir()
        (path / "0" if folder else path).write_text(text)

    script = (
        "import os, pathlib, sys; from catalog_builder.storage.local import in_one_step\n"
        "with in_one_step(pathlib.Path(sys.argv[1]), lone=True) as path:\n"
        "    path.mkdir() if sys.argv[2:] else path.write_text('half')\n"
        "    os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", script, str(target), *(["folder"] if folder else [])]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name == f".a.partial{target.suffix}"
    assert list(storage.list_files(tmp_path)) == []
    for text in ("one", "two"):
        with storage.local.in_one_step(target, lone=True) as path:
            assert path == left
            write(path, text)
        assert list(tmp_path.iterdir()) == [target]
        assert (target / "0" if folder else target).read_text() == text


def test_what_is_written_in_one_step_is_flushed_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(handle: int) -> None:
        steps.append(f"fsync {Path(f'/proc/self/fd/{handle}').readlink().suffix}")
        fsync(handle)

    def noted_replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    with storage.write_atomic(tmp_path / "a.json") as path:
        path.write_text("{}")
    assert steps == ["fsync .json", "rename", "fsync "]
    steps.clear()
    with storage.local.in_one_step(tmp_path / "a.json", durable=False) as path:
        path.write_text("{}")
    assert steps == ["rename"]


def test_local_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.txt").write_text("22")
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "b" / ".hidden").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "link").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    found = list(storage.list_files(tmp_path))
    assert [(e.path, e.size) for e in found] == [("a.txt", 1), ("b/2.txt", 2), ("link/2.txt", 2)]
    assert found[0].mtime == int((tmp_path / "a.txt").stat().st_mtime)
    assert storage.size(f"file://{tmp_path}/a.txt") == 1
    assert storage.exists(tmp_path / "a.txt")
    assert not storage.exists(tmp_path / "b")
    assert not storage.exists(tmp_path / "a.txt" / "x")
    assert storage.is_dir(tmp_path / "b")
    storage.put_file(tmp_path / "a.txt", tmp_path / "c" / "a.txt")
    assert storage.read_bytes(tmp_path / "c" / "a.txt") == b"1"


@pytest.mark.parametrize("action", [storage.open_binary, storage.size, lambda a: list(storage.list_files(a))])
def test_local_errors_name_the_path(tmp_path: Path, action: Callable[[str], object]) -> None:
    with pytest.raises(StorageError, match=r"missing: no such file"):
        action(str(tmp_path / "missing"))


def test_unknown_scheme() -> None:
    with pytest.raises(StorageError, match=r"unknown scheme 'ftp', expected a path"):
        storage.open_binary("ftp://host/x")
    with pytest.raises(StorageError, match="expected s3://bucket/key"):
        storage.open_binary("s3://")


def test_join() -> None:
    assert storage.join("/", "a") == "/a"
    assert storage.join("/x/", "a", "b") == "/x/a/b"
    assert storage.join("s3://bucket", "a") == "s3://bucket/a"


# ------------------------------------------------------------------------------------------- ranges


def ranged(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Answer a range as it should be."""
    start, _, last = handler.headers["Range"].removeprefix("bytes=").partition("-")
    part = BODY[int(start) : int(last) + 1]
    send(handler, 206, part, Content_Range=f"bytes {start}-{int(start) + len(part) - 1}/{len(BODY)}")


def test_ranges_of_a_local_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(BODY)
    meter = storage.Meter()
    with storage.open_ranged(path, meter) as file:
        assert file.size == len(BODY)
        assert file.read(7, 300) == BODY[7:300]
        assert file.read(5, 5) == b""
        with pytest.raises(StorageError, match=f"the file ends at byte {len(BODY)}"):
            file.read(len(BODY) - 1, len(BODY) + 1)
    assert (meter.bytes, meter.requests) == (293, 2)
    with pytest.raises(StorageError, match=r"none: no such file"), storage.open_ranged(tmp_path / "none"):
        pass


def test_ranges_from_the_web_are_tried_again_and_never_short(web: Web) -> None:
    faults = ["503", "cut", ""]

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        how = faults.pop(0) if faults else ""
        if how == "503":
            send(handler, 503, b"later")
        elif how == "cut":
            send(handler, 206, BODY[:10], cut=4)
        else:
            ranged(handler)

    web.answer = answer
    meter = storage.Meter()
    with storage.open_ranged(web.url, meter) as file:
        assert file.size is None
        assert file.read(100, 110) == BODY[100:110]
        assert len(web.requests) == 3
        assert web.requests[0][1]["range"] == "bytes=100-109"
        with pytest.raises(StorageError, match=f"{web.url}: bytes .* the response has 1 bytes"):
            file.read(len(BODY) - 1, len(BODY) + 9)
    assert (meter.bytes, meter.requests) == (10, 1)


@pytest.mark.parametrize(("status", "asked"), [(200, 1), (404, 1), (416, 1), (503, retry.ATTEMPTS)])
def test_a_response_that_is_not_the_range_is_refused(web: Web, status: int, asked: int) -> None:
    web.answer = lambda handler: send(handler, status, BODY[:500])
    with (
        storage.open_ranged(web.url) as file,
        pytest.raises(StorageError, match=f"HTTP {status} .*for a range"),
    ):
        file.read(0, 10)
    assert len(web.requests) == asked


def test_a_redirect_is_remembered_until_its_target_refuses(web: Web) -> None:
    """As presigned URLs do when they expire."""
    targets = iter("abc")
    asked: list[str] = []
    expired: set[str] = set()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        if handler.path == "/a.npy":
            send(handler, 302, b"", Location=f"/{next(targets)}")
        elif handler.path in expired:
            send(handler, 403, b"expired")
        else:
            ranged(handler)

    web.answer = answer
    with storage.open_ranged(web.url) as file:
        assert file.read(0, 3) == file.read(0, 3) == BODY[:3]
        assert asked == ["/a.npy", "/a", "/a"]
        expired.add("/a")
        assert file.read(3, 5) == BODY[3:5]
        assert asked[3:] == ["/a", "/a.npy", "/b"]
        assert file.read(3, 5) == BODY[3:5]
        assert asked[6:] == ["/b"]


def test_ranges_from_s3(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{endpoint}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    forget()
    boto3.client("s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1").create_bucket(
        Bucket="ranges"
    )
    (tmp_path / "a").write_bytes(BODY)
    storage.put_file(tmp_path / "a", "s3://ranges/a")
    meter = storage.Meter()
    with storage.open_ranged("s3://ranges/a", meter) as file:
        assert file.read(100, 110) == BODY[100:110]
        with pytest.raises(StorageError, match="the response has 1 bytes"):
            file.read(len(BODY) - 1, len(BODY) + 9)
    assert (meter.bytes, meter.requests) == (10, 1)
    forget()
