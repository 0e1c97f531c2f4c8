"""Direct access: upstream's arrays read by GDAL through range requests, counted one by one.

Request counts are those of a fresh process each, since GDAL caches within one. Bytes of pixels are
pinned exactly; bytes of views are the documents' own length.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from api.files.direct.app import DirectAccess
from api.files.direct.paths import SourceRoot, public_address
from catalog_builder.errors import QueryTimeoutError, StorageError
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import TileId
from tests.conftest import plain_environment
from tests.support.arrays import POLAR, RawTile, same_bits, write_raw_tile
from tests.support.http_server import Server, serve

V1 = dataset("v1")
NAME = POLAR.name
FOLDER = f"/source/v1/2024/{NAME}/"
EMPTY_DIR = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
MID = TileId.from_name("grid_0.15_52.05")
"""A tile of full size: 1139 x 729, 106 MB."""


def exists(directory: str, lat_i: int, lon_i: int, year: int) -> bool:
    return directory == "v1" and year in (2023, 2024) and TileId(lat_i, lon_i) in (POLAR, MID)


def lane(root: str | Path, landmasks: str | Path | None = None) -> Starlette:
    source = SourceRoot(V1, str(root), None if landmasks is None else str(landmasks))
    return Starlette(routes=[Mount("/source", DirectAccess([source], exists))])


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTile:
    made = write_raw_tile(tmp_path_factory.mktemp("root"))
    (made.root / f"{NAME}.tiff").write_bytes(b"II*\0 a landmask")
    return made


@pytest.fixture(scope="module")
def local(raw: RawTile) -> Iterator[Server]:
    with serve(lane(raw.root, raw.root)) as server:
        yield server


@pytest.fixture(scope="module")
def elsewhere(raw: RawTile) -> Iterator[tuple[Server, Server]]:
    """Return our server, and the other origin that it redirects to: Starlette's own file server."""
    with serve(StaticFiles(directory=raw.root)) as origin, serve(lane(origin.url, origin.url)) as server:
        yield server, origin


@pytest.fixture(scope="module")
def web(local: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=local.url, trust_env=False) as client:
        yield client


Read = Callable[..., None]


@pytest.fixture
def read(tmp_path: Path, gdal_python: Path) -> Read:
    """Return a function that reads a window in a fresh process and compares it with numpy's."""

    def run(
        server: Server, made: RawTile, window: tuple[int, int, int, int], settings: dict[str, str]
    ) -> None:
        server.clear()
        url = f"/vsicurl/{server.url}/source/v1/{made.year}/{made.tile.name}/{made.tile.name}_f32.vrt"
        out = tmp_path / "out.npy"
        command = [gdal_python, "-c", _READ, url, json.dumps(window), out]
        done = subprocess.run(command, env=plain_environment(**settings), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert same_bits(np.moveaxis(np.load(out), 0, -1), made.product(*window))

    return run


_READ = """
import json, sys, numpy, rasterio
from rasterio.windows import Window
with rasterio.open(sys.argv[1]) as ds:
    numpy.save(sys.argv[3], ds.read(window=Window(*json.loads(sys.argv[2]))))
"""


def counts(server: Server) -> dict[tuple[str, int], int]:
    return dict(Counter((r.method, r.status) for r in server.log))


def pixels(server: Server) -> int:
    """Bytes that were sent of arrays."""
    return sum(r.sent for r in server.log if r.path.endswith(".npy"))


def views(server: Server) -> list[int]:
    """Length of each document that was sent: views, labels and their sidecars."""
    total: Counter[str] = Counter()
    for r in server.log:
        if r.path.endswith((".vrt", ".xml")):
            total[r.path] += r.sent
    return sorted(n for n in total.values() if n)


# window, GETs and bytes of arrays: 5 GETs are those of the three views
DOCUMENTS = 5
POLAR_READS = [
    ((50, 100, 1, 1), 7, 65_536),
    ((50, 100, 64, 64), 13, 1_638_400),
    ((0, 0, 180, 1121), 29, 26_635_216),  # the whole tile: no byte twice
]


@pytest.mark.parametrize(("window", "gets", "sent"), POLAR_READS)
def test_local_root(local: Server, raw: RawTile, read: Read, window: Any, gets: int, sent: int) -> None:
    read(local, raw, window, EMPTY_DIR)
    assert counts(local) == {("HEAD", 200): 5, ("GET", 206): gets}
    assert pixels(local) == sent
    assert len(views(local)) == 3
    assert sum(views(local)) < 118_000  # of which 8.7 kB are what keeps mosaics right before GDAL 3.12.3


@pytest.mark.parametrize(("window", "gets", "sent"), POLAR_READS)
def test_default_settings(
    local: Server, raw: RawTile, read: Read, gdal_python: Path, window: Any, gets: int, sent: int
) -> None:
    # The index of the folder spares GDAL its search for sidecar files, and the sizes of the arrays.
    read(local, raw, window, {})
    heads = 2 if gdal_python == Path(sys.executable) else 3
    index = {("GET", 200): 1, ("HEAD", 404): 2}  # 404: .msk, .MSK
    assert counts(local) == {("HEAD", 200): heads, ("GET", 206): gets, **index}
    assert pixels(local) == sent


@pytest.mark.parametrize(("window", "gets", "sent"), POLAR_READS)
@pytest.mark.parametrize("settings", [EMPTY_DIR, {}], ids=["EMPTY_DIR", "default"])
def test_redirect_to_another_origin(
    elsewhere: tuple[Server, Server],
    raw: RawTile,
    read: Read,
    window: Any,
    gets: int,
    sent: int,
    settings: dict[str, str],
) -> None:
    server, origin = elsewhere
    origin.clear()
    read(server, raw, window, settings)
    # GDAL learns from the redirect of a HEAD where an array is, and asks there for every range.
    redirected = [(r.method, r.path) for r in server.log if r.status == 301]
    assert sorted(redirected) == [("HEAD", f"{FOLDER}{NAME}.npy"), ("HEAD", f"{FOLDER}{NAME}_scales.npy")]
    assert counts(server)[("GET", 206)] == DOCUMENTS
    assert counts(origin)[("GET", 206)] == gets - DOCUMENTS
    assert (pixels(server), pixels(origin)) == (0, sent)


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, RawTile]]:
    root = tmp_path_factory.mktemp("full")
    made = write_raw_tile(root, MID)
    with serve(lane(root)) as server:
        yield server, made
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ("window", "gets", "sent"),
    [
        ((50, 100, 1, 1), 7, 32_768),
        ((50, 100, 64, 64), 73, 1_802_240),
        ((50, 100, 256, 256), 267, 13_582_336),
        # 128 bands of a strip before the next strip: without that GDAL would fetch 13.7 GB
        ((0, 0, 729, 1139), 72, 110_734_444),
    ],
)
def test_a_tile_of_full_size(
    full_size: tuple[Server, RawTile], read: Read, window: Any, gets: int, sent: int
) -> None:
    server, made = full_size
    read(server, made, window, EMPTY_DIR)
    assert counts(server) == {("HEAD", 200): 5, ("GET", 206): gets}
    assert pixels(server) == sent


def test_views_over_http(web: httpx.Client) -> None:
    view = ("image/x.vrt", '<VRTDataset rasterXSize="180" rasterYSize="1121">')
    label = ("application/xml", '<?xml version="1.0" encoding="UTF-8"?>\n<Product_Observational ')
    for suffix, (media_type, start) in {
        ".vrt": view,
        "_scales.vrt": view,
        "_f32.vrt": view,
        ".xml": label,
        "_planes.xml": label,
        "_scales.xml.aux.xml": ("application/xml", "<PAMDataset>"),
    }.items():
        answer = web.get(f"{FOLDER}{NAME}{suffix}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == media_type
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.text.startswith(start)
        assert ("EPSG:32631" in answer.text) == (media_type == "image/x.vrt" or suffix.endswith(".aux.xml"))
        head = web.head(f"{FOLDER}{NAME}{suffix}")
        assert (head.content, head.headers["content-length"]) == (b"", str(len(answer.content)))
        etag = {"If-None-Match": answer.headers["etag"]}
        assert web.get(f"{FOLDER}{NAME}{suffix}", headers=etag).status_code == 304
        part = web.get(f"{FOLDER}{NAME}{suffix}", headers={"Range": "bytes=10-99"})
        assert (part.status_code, part.content) == (206, answer.content[10:100])


def test_files_of_a_local_root(web: httpx.Client, raw: RawTile) -> None:
    for suffix, path in (
        (".npy", raw.folder / f"{NAME}.npy"),
        ("_scales.npy", raw.folder / f"{NAME}_scales.npy"),
        (".tiff", raw.root / f"{NAME}.tiff"),
    ):
        body = path.read_bytes()
        answer = web.get(f"{FOLDER}{NAME}{suffix}", headers={"Range": "bytes=-9"})
        assert (answer.status_code, answer.content) == (206, body[-9:])
        assert web.head(f"{FOLDER}{NAME}{suffix}").headers["content-length"] == str(len(body))


@pytest.mark.service
def test_redirects(elsewhere: tuple[Server, Server]) -> None:
    server, origin = elsewhere
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for suffix, target in ((".npy", f"/2024/{NAME}/{NAME}.npy"), (".tiff", f"/{NAME}.tiff")):
            for method in ("GET", "HEAD"):
                answer = client.request(method, f"{FOLDER}{NAME}{suffix}")
                assert (answer.status_code, answer.headers["location"]) == (301, origin.url + target)
                assert answer.headers["access-control-allow-origin"] == "*"
                assert answer.headers["cache-control"] == "public, max-age=3600"
        assert client.options(f"{FOLDER}{NAME}.npy").status_code == 200


def test_index(web: httpx.Client, raw: RawTile) -> None:
    answer = web.get(FOLDER)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert f"<title>Index of {FOLDER[:-1]}</title>" in answer.text
    listed = dict(re.findall(r'<a href="([^"]+)">.* (\d+|-)$', answer.text, re.MULTILINE))
    labels = (".xml", "_scales.xml", "_planes.xml")
    views = (".vrt", "_u8.vrt", "_scales.vrt", "_f32.vrt", *labels, *(f"{label}.aux.xml" for label in labels))
    computed = ("_computed.vrt", "_computed.tif")
    files = (*views, *computed, "_planes.bin", ".npy", "_scales.npy", ".tiff")
    assert set(listed) == {NAME + s for s in (*files, *(f"_b{band:03d}.vrt" for band in range(128)))}
    for name, size in listed.items():
        if size != "-":
            assert web.head(FOLDER + name).headers["content-length"] == size, name
    answer = web.get(FOLDER[:-1])
    assert (answer.status_code, answer.headers["location"]) == (301, f"{NAME}/")


@pytest.mark.service
def test_no_index_of_files_elsewhere(elsewhere: tuple[Server, Server]) -> None:
    """With one, GDAL would not ask for sizes, and would be redirected for every range."""
    answer = httpx.get(f"{elsewhere[0].url}{FOLDER}", trust_env=False)
    assert answer.status_code == 404
    assert "no index" in answer.json()["description"]


@pytest.mark.service
def test_index_behind_a_proxy(raw: RawTile) -> None:
    inner = lane(raw.root)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await inner({**scope, "root_path": "/stac"}, receive, send)

    with serve(app) as server:
        for path in (FOLDER, f"/stac{FOLDER}"):
            answer = httpx.get(server.url + path, trust_env=False)
            assert (
                f"<title>Index of /stac{FOLDER[:-1]}</title>" in answer.text
            )  # GDAL compares it with its URL


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "v1/",
        "v1/2024/",
        f"v3/2024/{NAME}/{NAME}.vrt",
        f"synthetic/2024/{NAME}/{NAME}.vrt",
        f"v1/2017/{NAME}/{NAME}.vrt",
        f"v1/202/{NAME}/{NAME}.vrt",
        f"v1/٢٠٢٤/{NAME}/{NAME}.vrt",
        "v1/2024/grid_0.05_52.05/grid_0.05_52.05.vrt",
        "v1/2024/grid_0.06_83.65/grid_0.06_83.65.vrt",
        "v1/2024/grid_999.95_83.65/grid_999.95_83.65.vrt",
        "v1/2024/grid_00.05_83.65/grid_00.05_83.65.vrt",
        "v1/2024/grid_-0.00_83.65/grid_-0.00_83.65.vrt",
        f"v1/2024/{NAME}/grid_0.15_83.65.vrt",
        f"v1/2024/{NAME}/{NAME}.txt",
        f"v1/2024/{NAME}/{NAME}_f32.npy",
        f"v1/2024/{NAME}/{NAME}.vrt/",
        f"v1/2024/{NAME}/..%2f..%2f..%2fetc/passwd",
        f"v1/2024/{NAME}/{NAME}.npy%00",
        f"v1/2024/{NAME}/{NAME}.npy%0a",
        f"v1%2f2024/{NAME}",
        f"v1/2023/{NAME}/{NAME}.vrt",  # listed, but not in the folder
        f"v1/2023/{NAME}/{NAME}_scales.vrt",
        f"v1/2023/{NAME}/{NAME}_f32.vrt",
        f"v1/2023/{NAME}/{NAME}.npy",
    ],
)
def test_not_found(web: httpx.Client, path: str) -> None:
    answer = web.get(f"/source/{path}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "NotFoundError"
    assert answer.json()["description"]


@pytest.mark.service
def test_no_landmasks(raw: RawTile) -> None:
    with serve(lane(raw.root)) as server:
        answer = httpx.get(f"{server.url}{FOLDER}{NAME}.tiff", trust_env=False)
        index = httpx.get(f"{server.url}{FOLDER}", trust_env=False)
    assert answer.status_code == 404
    assert ".tiff" not in index.text


def test_methods(web: httpx.Client) -> None:
    assert web.post(f"{FOLDER}{NAME}.npy").status_code == 405
    assert web.options(f"{FOLDER}{NAME}.npy").headers["access-control-max-age"] == "86400"


@pytest.mark.service
def test_an_index_that_does_not_answer(raw: RawTile) -> None:
    def slow(*_key: object) -> bool:
        raise QueryTimeoutError("too slow")

    with serve(DirectAccess([SourceRoot(V1, str(raw.root))], slow)) as server:
        answer = httpx.get(f"{server.url}/v1/2024/{NAME}/{NAME}.npy", trust_env=False)
    assert (answer.status_code, answer.json()["description"]) == (503, "too slow")


H, W = POLAR.raster().shape
ODD_CODES = {
    "another shape": (np.zeros((H, W - 1, 128), np.int8), f"expects int8 ({H}, {W}, 128)"),
    "another type": (np.zeros((H, W, 128), np.uint8), "is uint8"),
    "Fortran order": (np.zeros((128, W, H), np.int8).T, "Fortran order"),
    "two axes": (np.zeros((H, W), np.int8), f"({H}, {W})"),
}


@pytest.mark.service
@pytest.mark.parametrize("case", [*ODD_CODES, "no npy", "empty", "truncated", "absurd"])
def test_a_source_that_does_not_fit(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "2024" / NAME
    folder.mkdir(parents=True)
    path = folder / f"{NAME}.npy"
    if case in ODD_CODES:
        array, reason = ODD_CODES[case]
        np.save(path, array)
    else:
        np.save(path, np.zeros((H, W, 128), np.int8))
        body = path.read_bytes()
        header = body[:128]
        odd, reason = {
            "no npy": (b"PK\3\4" + body[4:], "not a .npy"),
            "empty": (b"", "not a .npy"),
            "truncated": (body[:-1], "is truncated"),
            "absurd": (header.replace(b"'shape': (1121", b"'shape': ([[[["), "not a .npy"),
        }[case]
        path.write_bytes(odd)
    np.save(folder / f"{NAME}_scales.npy", np.zeros((H, W), np.float32))
    with serve(lane(tmp_path)) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        for suffix in (".vrt", "_f32.vrt"):
            answer = client.get(f"{FOLDER}{NAME}{suffix}")
            assert answer.status_code == 409
            assert answer.json()["code"] == "SourceMismatch"
            assert reason in answer.json()["description"]
            assert str(tmp_path) not in answer.text
        assert client.get(f"{FOLDER}{NAME}_scales.vrt").status_code == 200
        assert f"{NAME}_scales.vrt" in client.get(FOLDER).text
        assert f"{NAME}_f32.vrt" not in client.get(FOLDER).text


def test_a_header_of_another_length(tmp_path: Path, raw: RawTile, read: Read) -> None:
    # numpy 1.x and other writers pad the header to other lengths: the view has the true offset
    folder = tmp_path / "2024" / NAME
    folder.mkdir(parents=True)
    for suffix in (".npy", "_scales.npy"):
        body = (raw.folder / f"{NAME}{suffix}").read_bytes()
        header = body[10:127].rstrip() + b" " * 71 + b"\n"
        (folder / f"{NAME}{suffix}").write_bytes(
            body[:8] + len(header).to_bytes(2, "little") + header + body[128:]
        )
    with serve(lane(tmp_path)) as server:
        read(server, raw, (3, 1, 50, 20), EMPTY_DIR)


def test_scales_per_band(tmp_path: Path, read: Read) -> None:
    made = write_raw_tile(tmp_path, per_band_scales=True)
    with serve(lane(tmp_path)) as server:
        read(server, made, (3, 1, 50, 20), EMPTY_DIR)


def test_roots() -> None:
    for root, address in {
        "https://data.source.coop/tessera/tessera/npy/v2-2B-L~beta1/": (
            "https://data.source.coop/tessera/tessera/npy/v2-2B-L~beta1"
        ),
        "s3://tessera/tessera/npy/v1": "https://data.source.coop/tessera/tessera/npy/v1",
        "s3://us-west-2.opendata.source.coop/tessera/x": (
            "https://s3.us-west-2.amazonaws.com/us-west-2.opendata.source.coop/tessera/x"
        ),
        "s3://my-bucket": "https://my-bucket.s3.amazonaws.com",
        "s3://my.bucket/a": "https://s3.amazonaws.com/my.bucket/a",
    }.items():
        assert public_address(root) == address
    with pytest.raises(StorageError, match="unknown scheme 'ftp'"):
        DirectAccess([SourceRoot(V1, "ftp://x.org/tiles")], exists)


def test_planes_are_the_array_transposed(
    web: httpx.Client, raw: RawTile, elsewhere: tuple[Server, Server]
) -> None:
    """Any range of it, across bands and strips."""
    whole = np.moveaxis(raw.codes, -1, 0).tobytes()
    path = f"{FOLDER}{NAME}_planes.bin"
    pixels = raw.codes.shape[0] * raw.codes.shape[1]
    for start, stop in (
        (0, 10),
        (pixels - 3, pixels + 5),
        (5 * pixels + 7, 5 * pixels + 180_000),
        (0, 3 * pixels + 1),
    ):
        answer = web.get(path, headers={"range": f"bytes={start}-{stop - 1}"})
        assert answer.status_code == 206
        assert answer.content == whole[start:stop]
    head = web.head(path)
    assert int(head.headers["content-length"]) == len(whole)
    assert head.headers["etag"] != web.head(f"{FOLDER}{NAME}.npy").headers["etag"]
    remote, _ = elsewhere
    for suffix in ("_planes.bin", "_planes.xml"):
        assert httpx.get(f"{remote.url}{FOLDER}{NAME}{suffix}", trust_env=False).status_code == 404


def test_one_band_costs_one_band(local: Server, raw: RawTile, gdal_python: Path, tmp_path: Path) -> None:
    """Of a local source: its own bytes of codes, not those of 128 bands."""
    height, width = raw.codes.shape[:2]
    local.clear()
    url = f"/vsicurl/{local.url}{FOLDER}{NAME}_b005.vrt"
    command = [gdal_python, "-c", _READ, url, json.dumps((0, 0, width, height)), tmp_path / "o.npy"]
    done = subprocess.run(command, env=plain_environment(**EMPTY_DIR), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert same_bits(np.load(tmp_path / "o.npy")[0], raw.product(0, 0, width, height)[..., 5])
    codes = sum(r.sent for r in local.log if r.path.endswith("_planes.bin"))
    assert height * width <= codes <= height * width + 4 * 16_384
    assert not [r for r in local.log if r.path.endswith(f"{NAME}.npy")]


_OPEN_HERE_READ_THERE = """
import json, sys, threading, numpy, rasterio
from concurrent.futures import ThreadPoolExecutor
from rasterio.windows import Window
count, first, window, out, *urls = sys.argv[1:]
rounds = []
for _ in range(int(count)):
    opened = [rasterio.open(url, sharing=False) for url in urls]
    if int(first):
        for ds in opened:
            ds.read(window=Window(0, 0, 1, 1))
    ready = threading.Barrier(len(opened))
    def read(ds):
        ready.wait()
        return ds.read(window=Window(*json.loads(window)))
    with ThreadPoolExecutor(len(opened)) as pool:
        rounds.append(list(pool.map(read, opened)))
    for ds in opened:
        ds.close()
numpy.save(out, numpy.array(rounds))
"""


def opened_here_read_there(
    python: Path,
    tmp_path: Path,
    urls: list[str],
    window: tuple[int, int, int, int],
    *,
    rounds: int,
    first_pixel: bool,
) -> Any:
    """Open all in one thread, and read each in another: (rounds, urls, bands, rows, columns).

    ``first_pixel`` is read in the thread that opens: only then does GDAL open what a view reads.
    """
    out = tmp_path / "o.npy"
    asked = [str(rounds), str(int(first_pixel)), json.dumps(window)]
    command = [python, "-c", _OPEN_HERE_READ_THERE, *asked, out, *urls]
    done = subprocess.run(command, env=plain_environment(**EMPTY_DIR), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(out)


@pytest.mark.parametrize("where", ["local", "elsewhere"])
def test_bands_opened_in_one_thread_and_read_in_others(
    request: pytest.FixtureRequest, where: str, raw: RawTile, gdal_python: Path, tmp_path: Path
) -> None:
    """As stackstac does; GDAL's own raw bands would give rows of one band as another's."""
    fixture = request.getfixturevalue(where)
    server: Server = fixture if where == "local" else fixture[0]
    window = (0, 0, *raw.codes.shape[1::-1])
    bands = [0, 1, 64, 127]
    urls = [f"/vsicurl/{server.url}{FOLDER}{NAME}_b{band:03d}.vrt" for band in bands]
    wanted = np.moveaxis(raw.product(*window)[..., bands], -1, 0)[:, None]
    for found in opened_here_read_there(gdal_python, tmp_path, urls, window, rounds=12, first_pixel=True):
        assert same_bits(found, wanted)


def test_one_view_opened_often_in_one_thread_and_read_in_others(
    local: Server, raw: RawTile, gdal_python: Path, tmp_path: Path
) -> None:
    """What GDAL advises for reading a file in several threads: a dataset for each thread."""
    window = (17, 40, 60, 100)
    wanted = np.moveaxis(raw.product(*window), -1, 0)
    urls = [f"/vsicurl/{local.url}{FOLDER}{NAME}_f32.vrt"] * 3
    for found in opened_here_read_there(gdal_python, tmp_path, urls, window, rounds=6, first_pixel=False):
        for one in found:
            assert same_bits(one, wanted)


def test_a_label_says_where_its_array_lies(local: Server, raw: RawTile, gdal_python: Path) -> None:
    """So an array is readable as it is, by what GDAL finds beside it."""
    code = (
        "import sys, json, rasterio\n"
        "with rasterio.open(sys.argv[1]) as ds:\n"
        "    print(json.dumps([ds.count, ds.dtypes[0], ds.crs.to_epsg(), list(ds.transform)[:6]]))\n"
    )
    raster = raw.tile.raster()
    for suffix, bands, dtype in (("_planes", 128, "int8"), ("", 128, "int8"), ("_scales", 1, "float32")):
        url = f"/vsicurl/{local.url}{FOLDER}{NAME}{suffix}.xml"
        command = [gdal_python, "-W", "error", "-c", code, url]
        done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [bands, dtype, raster.epsg, list(raster.transform)[:6]]


def test_one_band_of_a_source_elsewhere(
    elsewhere: tuple[Server, Server], raw: RawTile, gdal_python: Path, tmp_path: Path
) -> None:
    server, _ = elsewhere
    url = f"/vsicurl/{server.url}{FOLDER}{NAME}_b127.vrt"
    command = [gdal_python, "-c", _READ, url, "[5, 7, 30, 20]", tmp_path / "o.npy"]
    done = subprocess.run(command, env=plain_environment(**EMPTY_DIR), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert same_bits(np.load(tmp_path / "o.npy")[0], raw.product(5, 7, 30, 20)[..., 127])
