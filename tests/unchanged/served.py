"""What the server says of the demonstration: a request of every route, parameter and kind of failure.

``tessera-stac serve`` runs in a process of its own and is asked over HTTP. Masked are, and nothing else:

=============================  =================================================================
``Date``                       a time
boundary of several ranges     random
presigned addresses            ``X-Amz-Date``, ``-Credential`` (has a date) and ``-Signature``; the
                               ``ETag`` and ``Cache-Control`` of such a response follow from the time
``/_mgmt/metrics``             figures: only names and kinds are kept
``/api``                       the version of the program: a release is no change of the API
=============================  =================================================================
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from tests.unchanged.record import Entries, Entry
from tests.unchanged.world import FIRST, NARROW, SECOND, URL, environment

_LONGEST = 20.0
"""Seconds for the server to start."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    target: str
    """Path and query. ``{embeddings}`` and the like stand for names of files that hold a digest."""
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    """JSON, or the bytes themselves."""
    follow: str | None = None
    """Instead of the target, the link of this relation in the response before."""

    @property
    def name(self) -> str:
        """What it is called in the reference."""
        said = [f"{self.method} {self.target[:500]}" + (f" -> {self.follow}" if self.follow else "")]
        said += [f"{k}: {v}" for k, v in self.headers.items()]
        if self.body is not None:
            said.append(self.body.decode() if isinstance(self.body, bytes) else json.dumps(self.body))
        return " | ".join(said)


def ask_all(folder: Path, requests: Sequence[Request]) -> Entries:
    """Serve the catalogue of a folder and return an entry for each response, in the order of the requests."""
    names = _names(folder)
    entries: Entries = {}
    with _server(folder) as port:
        before = b""
        for request in requests:
            entry, before = _ask(port, request, names, before)
            assert request.name not in entries, f"twice: {request.name}"
            entries[request.name] = entry
    return entries


def _names(folder: Path) -> dict[str, str]:
    """Return names of files that hold a digest of what is in them."""
    cogs = folder / "catalog" / "cogs" / "synthetic" / "2024" / FIRST
    return {path.stem.rpartition("_")[2]: path.name for path in cogs.iterdir()}


@contextmanager
def _server(folder: Path) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "catalog_builder.cli", "serve", "catalog", "--port", str(port)]
    log = folder / "serve.log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            command, cwd=folder, env={**environment(), "TESSERA_STAC_PRESIGN": "true"}, stdout=out, stderr=out
        ) as process,
    ):
        try:
            _wait(port, process, log)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _LONGEST
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the server did not start: {log.read_text()}")


def _ask(port: int, request: Request, names: Mapping[str, str], before: bytes) -> tuple[Entry, bytes]:
    target, body = request.target, request.body
    if request.follow is not None:
        link = next(x for x in json.loads(before)["links"] if x["rel"] == request.follow)
        parts = urlsplit(link["href"])
        target, body = f"{parts.path}?{parts.query}" if parts.query else parts.path, link.get("body")
    for name, file in names.items():
        target = target.replace(f"{{{name}}}", file)
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    headers = {"Host": urlsplit(URL).netloc, "X-Request-Id": "unchanged", **request.headers}
    if content is not None:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(content)
        response = connection.getresponse()
        found = response.read()
        said = sorted((k.lower(), v) for k, v in response.getheaders() if k.lower() != "date")
    finally:
        connection.close()
    # What a busy machine refuses is no reference.
    assert response.status != 503, f"{target}: {found[:200]!r}: ask again when the machine is less busy"
    return _entry(request, response.status, said, found), found


def _entry(request: Request, status: int, headers: list[tuple[str, str]], body: bytes) -> Entry:
    content = body
    if boundary := re.search(r"boundary=(\w+)", dict(headers).get("content-type", "")):
        content = content.replace(boundary[1].encode(), b"BOUNDARY")
        headers = [(k, v.replace(boundary[1], "BOUNDARY")) for k, v in headers]
    if "hrefs=presigned" in request.target:
        content = re.sub(rb"(X-Amz-(?:Date|Credential|Signature)=)[^&\"]*", rb"\1MASKED", content)
        headers = [(k, re.sub(r"[0-9a-f]{24}|(?<=max-age=)\d+", "MASKED", v)) for k, v in headers]
        headers = [(k, v) for k, v in headers if k != "cache-control" or "max-age" not in v]
    if request.target == "/_mgmt/metrics":
        kinds = [line for line in content.splitlines() if line.startswith(b"# TYPE")]
        content = b"\n".join(sorted(kinds))
        headers = [(k, v) for k, v in headers if k != "content-length"]
    if request.target == "/api":
        content = re.sub(rb'(?<="version":")\d[^"]*(?=")', b"VERSION", content, count=1)
        headers = [(k, v) for k, v in headers if k != "content-length"]
    facts: dict[str, object] = {"status": status}
    for name, value in headers:
        facts[name] = f"{facts[name]}, {value}" if name in facts else value
    return Entry.of(content, facts)


# ---------------------------------------------------------------------------------------------- requests


def _get(*targets: str, **headers: str) -> list[Request]:
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return [Request(target, headers=named) for target in targets]


def _post(target: str, *bodies: object) -> list[Request]:
    return [Request(target, "POST", body=body) for body in bodies]


def _q(**parameters: str) -> str:
    return "&".join(f"{k.replace('_', '-')}={quote(v, safe=',/:')}" for k, v in parameters.items())


def _search(**parameters: str) -> str:
    return f"/search?{_q(**{'limit': '2', **parameters})}"


_V1, _OURS, _S3 = "/collections/tessera-v1", "/collections/tessera-synthetic", "/collections/tessera-v1.1-cam"
_ITEM = f"{_OURS}/items/{FIRST}_2024"
_RAW = f"/source/synthetic/2022/{FIRST}"
_DONE = f"/source/synthetic/2024/{FIRST}"
_COGS = f"/data/cogs/synthetic/2024/{FIRST}"
_POLYGON = {"type": "Polygon", "coordinates": [[[0, 52], [0.35, 52.1], [0.2, 52.4], [0, 52]]]}
_CQL2 = {
    "op": "and",
    "args": [
        {"op": ">=", "args": [{"property": "tessera:year"}, 2023]},
        {"op": "s_intersects", "args": [{"property": "geometry"}, _POLYGON]},
    ],
}
_LAST_MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"

REQUESTS: tuple[Request, ...] = (
    # operations
    *_get("/_mgmt/ping", "/_mgmt/ready", "/_mgmt/health", "/_mgmt/metrics", "/favicon.ico"),
    # documents
    *_get("/", "/conformance", "/collections", "/queryables", "/sortables", "/collections-queryables",
          "/aggregations", "/children", "/api", "/api.html", "/?view=bands&bands=0,5", "/?hrefs=s3"),
    *(r for c in (_V1, _OURS, _S3) for r in _get(c, f"{c}/queryables", f"{c}/sortables",
    f"{c}/aggregations")),
    *_get(f"{_OURS}?view=bands&bands=1-3", f"{_S3}?hrefs=s3"),
    Request("/", headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "stac.example.org",
                          "X-Forwarded-Prefix": "/stac"}),
    Request("/collections", headers={"Forwarded": 'for=1.2.3.4;proto=https;host="stac.example.org:8443"'}),
    # among collections
    *_get("/collections?bbox=-34,80,-32,84",
    "/collections?datetime=2017-01-01T00:00:00Z/2018-01-01T00:00:00Z",
          "/collections?q=synthetic", "/collections?sortby=-id&fields=id,title&limit=1",
          f"/collections?{_q(filter='gsd = 10 AND id LIKE ' + chr(39) + 'tessera-v1%' + chr(39))}"),
    Request("/collections?limit=1"),
    Request("/collections?limit=1", follow="next"),
    # items
    *_get(f"{_V1}/items?limit=3", f"{_V1}/items/grid_0.15_52.05_2024", _ITEM, f"{_OURS}/items/{FIRST}_2023",
          f"{_OURS}/items/{FIRST}_2022", f"{_OURS}/items", f"{_OURS}/items?{_q(filter='tessera:cog = true')}",
          f"{_ITEM}?view=bands&bands=0,127", f"{_OURS}/items/{FIRST}_2022?view=bands&bands=3",
          f"{_V1}/items/grid_0.15_52.05_2024?view=bands&bands=9"),
    *(r for h in ("https", "s3", "presigned") for r in _get(
        f"{_S3}/items/{FIRST}_2024?hrefs={h}", f"{_S3}/items?hrefs={h}&limit=1",
        f"{_S3}/items/{FIRST}_2024?hrefs={h}&view=bands&bands=0-1")),
    Request(_ITEM, headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "stac.example.org",
                            "X-Forwarded-Port": "444"}),
    # search
    Request("/search"),
    Request("/search", follow="next"),
    *_get(
        _search(bbox="0,52,0.2,52.2"), _search(bbox="179,-10,-8,60"), _search(bbox="0,52,-10,0.2,52.2,10"),
        _search(intersects=json.dumps(_POLYGON)),
        _search(intersects='{"type":"Point","coordinates":[0.12,52.2]}'),
        _search(datetime="2024-06-01T00:00:00Z"),
        _search(datetime="2018-01-01T00:00:00Z/2019-12-31T00:00:00Z"),
        _search(datetime="../2017-06-01T00:00:00Z"), _search(collections="tessera-synthetic,nothing"),
        _search(ids="grid_0.15_52.05_2024,grid_0.15_52.05_2019,none"),
        _search(limit="20", bbox="0,52,0.2,52.1"),
        _search(limit="0"), _search(limit="1000000", bbox="0,52,0.05,52.05"),
        _search(sortby="-datetime,tessera:tile"), _search(sortby="-tessera:valid_fraction"),
        _search(sortby="+id"),
        _search(fields="id,properties.datetime,-geometry"), _search(fields="-assets,-links"),
        _search(query='{"tessera:year":{"gte":2020,"lt":2022},"tessera:coverage":{"eq":"partial"}}'),
        _search(q="Cambridge"), _search(q="synthetic,2023"),
        _search(hrefs="s3", collections="tessera-v1.1-cam"),
        _search(view="bands", bands="5", collections="tessera-synthetic"),
        _search(filter="tessera:year = 2024 AND tessera:utm_zone IN (30, 31)"),
        _search(filter="tessera:coverage <> 'full' OR tessera:cog = false"),
        _search(filter="id LIKE 'grid_0.1%' AND tessera:year BETWEEN 2018 AND 2019"),
        _search(filter="S_WITHIN(geometry, POLYGON((0 52, 1 52, 1 53, 0 53, 0 52)))"),
        _search(filter="T_INTERSECTS(INTERVAL(start_datetime, end_datetime), INTERVAL('2020-03-01', '..'))"),
        _search(filter="CASEI(title) LIKE casei('%SYNTHETIC%') AND tessera:valid_fraction > 0.5"),
        _search(filter=json.dumps(_CQL2), filter_lang="cql2-json"),
        _search(filter="tessera:year * 2 - 1 = 4047", filter_crs="http://www.opengis.net/def/crs/OGC/1.3/CRS84"),
    ),
    *_post(
        "/search",
        {},
        {"collections": ["tessera-v1"], "bbox": [0, 52, 0.2, 52.2], "limit": 2,
         "datetime": "2023-01-01T00:00:00Z"},
        {"intersects": _POLYGON, "sortby": [{"field": "tessera:year", "direction": "desc"}], "limit": 1},
        {"filter": _CQL2, "filter-lang": "cql2-json", "fields": {"include": ["id"], "exclude": ["links"]}},
        {"filter": "tessera:year = 2024", "filter-lang": "cql2-text", "limit": 1},
        {"query": {"tessera:cog": {"eq": True}}, "view": "bands", "bands": [0, 1], "limit": 1},
        {"ids": [f"{SECOND}_2024"], "hrefs": "https"},
    ),
    Request("/search", "POST", body={"limit": 1, "collections": ["tessera-synthetic"]}),
    Request("/search", "POST", follow="next", body={"limit": 1, "collections": ["tessera-synthetic"]}),
    # counts
    *_get(
        "/aggregate?aggregations=total_count,year_frequency,datetime_frequency,collection_frequency",
        "/aggregate?aggregations=coverage_frequency,utm_zone_frequency,cog_frequency&bbox=-3,50,1,53",
        f"{_V1}/aggregate?aggregations=grid_degree_frequency&{_q(filter='tessera:year = 2020')}",
        f"{_OURS}/aggregate?aggregations=cog_frequency,coverage_frequency",
    ),
    *_post("/aggregate", {"aggregations": ["total_count", "year_frequency"], "intersects": _POLYGON}),
    *_post(f"{_OURS}/aggregate", {"aggregations": ["total_count"], "filter": "tessera:cog = false"}),
    # to browse, and coverage
    *_get("/browse", f"{_OURS}/browse",
          f"{_V1}/browse/2024", f"{_V1}/browse/2024/0,50,10", f"{_V1}/browse/2024/0,52,1",
          f"{_OURS}/browse/2021", f"{_OURS}/browse/2024/-40,80,10?hrefs=https", "/browser", "/browser/",
          "/browser/config.js", "/coverage", "/coverage/at?lon=0.12&lat=52.2",
          "/coverage/at?collection=tessera-synthetic&lon=-33.05&lat=82.55", "/coverage/at?lon=100&lat=0",
          "/coverage/tiles/tessera-v1/4/7/5.png", "/coverage/tiles/tessera-v1/9/255/168.png?year=2024",
          "/coverage/tiles/tessera-synthetic/0/0/0.png"),
    # pictures
    *_get(f"{_ITEM}/preview.png?max_size=64", f"{_ITEM}/preview.png?bands=0,5,9&max_size=64",
          f"{_OURS}/items/{SECOND}_2024/preview.png?bands=b000,b001,b002&rescale=-3,3&max_size=40",
          f"{_OURS}/items/{FIRST}_2023/preview.png?bands=1,2,3&max_size=50",
          f"{_OURS}/items/{FIRST}_2022/preview.png?bands=1,2,3&max_size=50",
          f"{_OURS}/items/{FIRST}_2022/preview.png?max_size=50", f"{_OURS}/items/{NARROW}_2021/preview.png",
          f"{_ITEM}/tiles/WebMercatorQuad/11/836/120.png",
          f"{_ITEM}/tiles/WebMercatorQuad/9/209/30.png?bands=0,1,2",
          f"{_OURS}/tiles/WebMercatorQuad/9/209/30.png",
          f"{_OURS}/tiles/WebMercatorQuad/10/418/60.png?year=2022",
          f"{_ITEM}/WebMercatorQuad/tilejson.json?bands=0,1,2", f"{_OURS}/WebMercatorQuad/tilejson.json",
          f"{_V1}/WebMercatorQuad/tilejson.json?year=2020"),
    # direct access to the published arrays
    *(Request(f"{_RAW}/{FIRST}{suffix}") for suffix in (
        "_f32.vrt", ".vrt", "_scales.vrt", "_b005.vrt", ".xml", "_scales.xml", "_planes.xml",
        ".xml.aux.xml", "_scales.xml.aux.xml", "_planes.xml.aux.xml", ".tiff", "_scales.npy")),
    *_get(f"{_RAW}/", _RAW, f"{_DONE}/{FIRST}_b005.vrt", f"{_DONE}/{FIRST}_f32.vrt",
          "/source/v1/2024/grid_0.15_52.05/grid_0.15_52.05_f32.vrt",
          "/source/v1/2024/grid_0.15_52.05/grid_0.15_52.05_b127.vrt",
          "/source/v1/2024/grid_0.15_52.05/grid_0.15_52.05.xml",
          "/source/v1/2024/grid_0.15_52.05/grid_0.15_52.05.npy",
          "/source/v1/2024/grid_0.15_52.05/grid_0.15_52.05.tiff", "/source/v1/2024/grid_0.15_52.05/",
          f"/source/v1.1-cam/2024/{FIRST}/{FIRST}.npy", f"/source/v1.1-cam/2024/{FIRST}/{FIRST}_b000.vrt",
          f"/source/v1.1-cam/2024/{FIRST}/{FIRST}_planes.bin"),
    *_get(f"{_RAW}/{FIRST}.npy", f"{_RAW}/{FIRST}_planes.bin", Range="bytes=0-199"),
    *_get(f"{_RAW}/{FIRST}_planes.bin", Range="bytes=162900-163100,400000-400010"),
    *_get(f"{_RAW}/{FIRST}.vrt", Range="bytes=0-99"),
    Request(f"{_RAW}/{FIRST}.npy", "HEAD"),
    Request(f"{_RAW}/{FIRST}.npy", "OPTIONS"),
    # files
    *_get("/data/catalog.json", "/data/tessera-v1/collection.json", "/data/tessera-synthetic/coverage.png",
          f"{_COGS}/", f"{_COGS}/{{f32}}", f"{_COGS}/{{thumbnail}}", f"{_COGS}/{{visual}}", "/data/",
          "/data/cogs/",
          "/data/.current/catalog.json", "/data/cogs/ledger/none.jsonl", "/data/%2e%2e/source/README.md"),
    *_get(f"{_COGS}/{{embeddings}}", Range="bytes=0-38255"),
    *_get(f"{_COGS}/{{embeddings}}", Range="bytes=-100"),
    *_get(f"{_COGS}/{{embeddings}}", Range="bytes=100-199,50000-50099,-10"),
    *_get(f"{_COGS}/{{embeddings}}", Range="bytes=99999999999-"),
    *_get(f"{_COGS}/{{embeddings}}", Range="bytes=5-2"),
    *_get(f"{_COGS}/{{scales}}", Range="rows=1-2"),
    *_get(f"{_COGS}/{{scales}}", If_None_Match="*"),
    *_get(f"{_COGS}/{{scales}}", If_Match='"other"'),
    *_get(f"{_COGS}/{{scales}}", If_Modified_Since=_LAST_MODIFIED),
    *_get(f"{_COGS}/{{scales}}", Range="bytes=0-9", If_Range=_LAST_MODIFIED),
    *_get("/data/tessera-v1/items/year=2024/items.parquet", "/data/index.sqlite", Range="bytes=0-15"),
    Request(f"{_COGS}/{{embeddings}}", "HEAD"),
    Request(f"{_COGS}/{{embeddings}}", "OPTIONS", {"Origin": "https://a.test",
    "Access-Control-Request-Method": "GET"}),
    # how responses are sent
    *_get("/search?limit=5", Accept_Encoding="gzip"),
    *_get("/search?limit=5", Accept_Encoding="br;q=1.0, gzip;q=0.5"),
    *_get("/search?limit=5", Accept_Encoding="zstd, br, gzip"),
    *_get("/search?limit=5", "/collections", _ITEM, "/coverage", If_None_Match="*"),
    *_get("/coverage", "/browser/", Accept_Encoding="br"),
    *_get("/", Origin="https://a.test"),
    Request("/search?limit=1", "HEAD"),
    Request("/search", "OPTIONS", {"Origin": "https://a.test", "Access-Control-Request-Headers": "X-Mine"}),
    # failures
    *_get(
        "/nothing", "/collections/none", "/collections/none/items", f"{_V1}/items/none",
        f"{_V1}/items/grid_0.15_52.05_1999",
        f"{_V1}/browse/1999", f"{_V1}/browse/2024/1,2,3", "/search?bbox=1,2,3", "/search?bbox=a,b,c,d",
        "/search?bbox=0,90,1,-90", "/search?datetime=yesterday", "/search?limit=ten", "/search?limit=-1",
        "/search?token=x", "/search?foo=1", "/search?limit=1&limit=2", "/search?sortby=nothing",
        "/search?sortby=geometry", "/search?filter=nothing%20%3D%201", "/search?filter=tessera:year%20%3D%20",
        "/search?filter=tessera:year%20%3D%20%27x%27", "/search?filter-lang=sql&filter=true",
        "/search?filter=true&filter-crs=x", "/search?query=%7B",
        "/search?query=%7B%22id%22:%7B%22foo%22:1%7D%7D",
        "/search?intersects=%7B%22type%22:%22Point%22%7D", "/search?q=%20",
        "/search?bbox=0,0,1,1&intersects=%7B%22type%22:%22Point%22,%22coordinates%22:%5B0,0%5D%7D",
        "/search?view=other", "/search?bands=1", "/search?view=bands&bands=128", "/search?hrefs=ftp",
        "/aggregate?aggregations=nothing", "/collections?sortby=nothing", "/collections?limit=0",
        f"{_ITEM}?foo=1", "/coverage/at?lon=x&lat=1", "/coverage/tiles/tessera-v1/a/0/0.png",
        "/coverage/tiles/none/0/0/0.png", f"{_ITEM}/preview.png?max_size=5", f"{_ITEM}/preview.png?bands=1,2",
        f"{_ITEM}/preview.png?rescale=0,1", f"{_ITEM}/preview.png?bands=1,2,3&rescale=3,1",
        f"{_ITEM}/tiles/WebMercatorQuad/40/0/0.png", f"{_OURS}/tiles/WebMercatorQuad/9/209/30.png?year=1999",
        f"{_V1}/items/grid_0.15_52.05_2024/preview.png", "/source/none/2024/x/",
        f"/source/synthetic/1999/{FIRST}/",
        "/source/synthetic/2022/grid_0.123_1.00/grid_0.123_1.00.npy", f"{_RAW}/{FIRST}_b128.vrt",
        f"{_RAW}/{FIRST}.zip", "/source/", f"/source/synthetic/2021/{NARROW}/{NARROW}_f32.vrt",
        f"/source/synthetic/2021/{NARROW}/", f"/source/synthetic/2025/{FIRST}/{FIRST}.vrt",
    ),
    *_post("/search", [], {"limit": "x"}, {"foo": 1}, {"bbox": [1, 2]}, {"collections": "tessera-v1"},
           {"token": "x"}, {"sortby": [{"field": "id", "direction": "up"}]}, {"filter": {"op": "no",
           "args": []}},
           {"view": "bands", "bands": [200]}, b"{", b""),
    *_post("/collections", {}),
    *_post(f"{_RAW}/{FIRST}.npy", {}),
    Request("/search", "DELETE"),
    Request("/data/catalog.json", "PUT", body={}),
    Request("/search", "POST", {"Content-Encoding": "gzip"}, {"limit": 1}),
    Request("/search", "POST", {"Content-Type": "text/plain"}, {"limit": 1}),
    Request("/search", "POST", {"Content-Length": "5000000"}, b"{}"),
    Request(f"/search?filter={'x' * 64_500}"),
)  # fmt: skip
"""Every one has a name of its own; their order is that of asking."""
