"""A planet of 14.4 million tile-years: built, checked, exported, served, searched and drawn.

The manifests are synthetic, over the real land cells of the world (:mod:`tests.scale.land`); no pixel is
read. Run with ``-s`` to see the tables; the file's tests go together, in order.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import httpx
import pytest

from catalog_builder.tile.grid import Bounds
from tests.bench.measure import Cost, memory_of_tree, run_verb
from tests.bench.planet import PLANET, REPLACED_YEAR, URL, boxes, planet_catalog, planet_manifests
from tests.bench.searches import comma, in_box, interval, pages
from tests.bench.serve import Server, tessera
from tests.bench.tables import show
from tests.conformance.api_validator import CLASSES, MISTAKES, box, check, validate
from tests.scale import checks
from tests.scale.land import land_cells
from tests.scale.manifests import write_manifests
from tests.support.chromium import open_tab
from tests.support.oracle import Oracle

pytestmark = [pytest.mark.bench, pytest.mark.release, pytest.mark.timeout(7200)]

N = 200
"""Requests of a kind."""
QUESTIONS = int(os.environ.get("PLANET_QUESTIONS", "350"))
"""Searches that are compared with brute force."""
WESTERN_EUROPE = Bounds(-10, 36, 20, 60)
"""About a million tile-years, and the part that a static tree is tried on."""
HEAD = ["what", "tile-years", "seconds", "CPU s", "us per tile-year", "peak MB"]


def _cost(what: str, n: int, cost: Cost) -> list[str]:
    return [
        what,
        f"{n:,}",
        f"{cost.seconds:.1f}",
        f"{cost.cpu_seconds:.1f}",
        f"{cost.seconds / n * 1e6:.1f}",
        f"{cost.peak_mb:,.0f}",
    ]


def _size(path: Path) -> int:
    """Return the bytes of a file or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file() and not f.is_symlink())


def test_build(tmp_path: Path) -> None:
    now, later = planet_manifests(), planet_manifests(later=True)
    n = now.tile_years
    assert 14_300_000 < n < 14_450_000
    rows = []

    def build(what: str, out: Path, of: int, *sources: Path) -> dict[str, int]:
        cost = run_verb("build", *sources, "--out", out, "--url", URL, "--quiet", "--json")
        rows.append(_cost(what, of, cost))
        report: dict[str, int] = json.loads(cost.output)
        assert report["items"] == of
        assert not report["problems"]
        return report

    part = write_manifests(tmp_path / "part", land_cells(WESTERN_EUROPE))
    build("western Europe", tmp_path / "catalog", part.tile_years, *part.sources)
    shutil.rmtree(PLANET, ignore_errors=True)
    assert build("the planet", PLANET, n, *now.sources)["added"] == n
    again = build("the same again, unchanged", PLANET, n, *now.sources)
    assert (again["published"], again["changed"]) == (False, 0)
    changed = build(f"1 % of the files of {REPLACED_YEAR} replaced", PLANET, n, *later.sources)
    assert 0.009 * n / 9 < changed["changed"] < 0.011 * n / 9
    assert (changed["added"], changed["removed"]) == (0, 0)
    show("Build: manifest.parquet and landmasks.parquet to a catalogue", HEAD, rows)
    version = (PLANET / ".current").resolve()
    sizes = {
        "manifest.parquet": _size(now.manifest),
        "landmasks.parquet": _size(now.landmasks),
        "index.sqlite": _size(version / "index.sqlite"),
        "stac-geoparquet, 9 files": _size(version / "tessera-v1" / "items"),
        "what the next build compares with": _size(version / ".state"),
        "the whole version": _size(version),
    }
    show(
        "On disk",
        ["what", "MB", "bytes per tile-year"],
        [[what, f"{size / 1e6:,.1f}", f"{size / n:.1f}"] for what, size in sizes.items()],
    )


def test_verbs(tmp_path: Path) -> None:
    """Every verb that reads a catalogue."""
    catalog, n, rows = planet_catalog(), planet_manifests().tile_years, []
    one_year = ("--years", "2020", "--quiet")
    few = ("--bbox", ",".join(map(str, WESTERN_EUROPE)))
    outputs = {name: tmp_path / name for name in ("map.png", "map.html", "parquet", "a.ndjson.zst", "static")}
    for what, *arguments in (
        ("info", "info", catalog),
        ("coverage, the table", "coverage", catalog),
        ("coverage, an image", "coverage", catalog, "--out", outputs["map.png"]),
        ("coverage, a page in one file", "coverage", catalog, "--out", outputs["map.html"]),
    ):
        rows.append(_cost(what, n, run_verb(*arguments)))
    cost = run_verb("validate", catalog, "--json", "--quiet")
    assert json.loads(cost.output)["sound"]
    rows.append(_cost("validate", n, cost))
    for what, to, target, *more in (
        ("export to stac-geoparquet, one year", "geoparquet", outputs["parquet"], *one_year),
        ("export to ndjson, one year, zstd", "ndjson", outputs["a.ndjson.zst"], *one_year),
        (
            "export to a static tree, one year of western Europe",
            "static",
            outputs["static"],
            *one_year,
            *few,
        ),
    ):
        cost = run_verb("export", catalog, "--to", to, "--out", target, "--json", *more)
        rows.append(_cost(what, json.loads(cost.output)["items"], cost))
    show("Verbs over the planet", HEAD, rows)
    of_static = int(rows[-1][1].replace(",", ""))
    on_disk = sum(f.stat().st_blocks * 512 for f in outputs["static"].rglob("*"))
    facts = [[name, f"{_size(path) / 1e6:,.1f}"] for name, path in outputs.items()]
    facts.append(["static, blocks of the disk", f"{on_disk / 1e6:,.1f}"])
    show("What they wrote", ["what", "MB"], facts)
    print(
        f"\nA static tree of everything would be {n:,} files and {on_disk / of_static * n / 1e9:,.0f} GB of"
        " disk: the verb refuses it beyond --max-items."
    )
    cost = run_verb("export", catalog, "--to", "geoparquet", "--out", tmp_path / "all", "--json", "--quiet")
    assert json.loads(cost.output)["items"] == n
    show("Everything to stac-geoparquet", HEAD, [_cost("export to stac-geoparquet, all", n, cost)])
    shutil.rmtree(tmp_path / "all")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tessera(planet_catalog()) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle.of_parquet(planet_manifests().manifest)


def _times(calls: list[Callable[[], object]], warm: int = 20) -> list[str]:
    for call in calls[:warm]:
        call()
    times = []
    for call in calls:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    return [f"{statistics.median(times):.2f}", f"{times[int(len(times) * 0.95)]:.2f}", f"{times[-1]:.1f}"]


def test_search(server: Server) -> None:
    start_up, before = server.start_up, (server.own_memory_mb(), memory_of_tree(server.process.pid))

    rows = []

    def measure(name: str, paths: list[str], warm: int = 20, **headers: str) -> None:
        times = _times([lambda p=p: server.get(p, **headers) for p in paths], warm)
        size = statistics.median(len(server.get(p, **headers)) for p in paths[:20])
        rows.append([name, *times, f"{size / 1e3:,.0f}"])

    small = [in_box(*b) for b in boxes(N)]
    measure("1 x 1 degree, one year, limit 100", small)
    measure("the same, gzip", small, **{"Accept-Encoding": "gzip"})
    measure("the same, limit 10", [in_box(*b, limit=10) for b in boxes(N)])
    measure("10 x 10 degrees, all years, limit 100", [in_box(b, None) for b, _ in boxes(N, 10)])
    measure("60 x 60 degrees, all years, limit 100", [in_box(b, None) for b, _ in boxes(N, 60)])
    zone = '&filter="tessera:utm_zone"<>32'.replace('"', "%22").replace("<", "%3C").replace(">", "%3E")
    measure("10 x 10 degrees, a filter on the zone", [in_box(b, y, more=zone) for b, y in boxes(N, 10, 2)])
    partial = "&filter=%22tessera:coverage%22='partial'"
    measure("10 x 10 degrees, a filter on coverage", [in_box(b, y, more=partial) for b, y in boxes(N, 10, 3)])
    newest = "&sortby=-datetime"
    measure("10 x 10 degrees, newest first", [in_box(b, None, more=newest) for b, _ in boxes(N, 10, 4)])
    by_id = "&sortby=-id"
    measure("10 x 10 degrees, sorted by id", [in_box(b, y, more=by_id) for b, y in boxes(N, 10, 5)])
    measure("the whole world, one year, limit 100", [f"/search?datetime={interval(2020)}&limit=100"] * N)
    ids = [f["id"] for f in json.loads(server.get(small[0]))["features"]]
    measure("by id", [f"/search?ids={ids[i % len(ids)]}" for i in range(N)])
    (deep,) = pages(server, in_box((-180, 20, 180, 60), 2021), 50, 50)
    measure("page 50 of a continent-wide search", [deep.path] * N)
    measure("aggregate a 10 degree box by year", [_aggregate("year_frequency", b) for b, _ in boxes(N, 10)])
    # Answers are remembered: the first is what a world costs.
    for name in ("year", "utm_zone", "grid_degree", "coverage"):
        measure(f"aggregate the world by {name}, the first time", [_aggregate(f"{name}_frequency")], 0)
    show(
        f"Search over HTTP, one worker, {planet_manifests().tile_years:,} items; first answer"
        f" {start_up:.2f} s after start, memory then {before[0]:,.0f} MB of its own ({before[1]:,.0f} MB with"
        f" what it shares), afterwards {server.own_memory_mb():,.0f} MB",
        ["search", "median ms", "95 % ms", "max ms", "kB"],
        rows,
    )


def _aggregate(name: str, box: tuple[float, ...] | None = None) -> str:
    inside = "" if box is None else f"&bbox={comma(box)}"
    return f"/aggregate?aggregations={name}{inside}"


def test_duckdb_on_the_same_parquet() -> None:
    pattern = f"{planet_catalog()}/tessera-v1/items/*/*.parquet"
    with duckdb.connect() as db:
        db.execute(f"SET threads = {os.cpu_count()}")
        sql = (
            "SELECT * FROM read_parquet(?, hive_partitioning = true) WHERE year = ?"
            " AND bbox.xmin <= ? AND bbox.xmax >= ? AND bbox.ymin <= ? AND bbox.ymax >= ? LIMIT 100"
        )
        calls = [
            lambda b=b, y=y: db.execute(sql, [pattern, y, b[2], b[0], b[3], b[1]]).fetchall()
            for b, y in boxes(30)
        ]
        show(
            "DuckDB in process on the same stac-geoparquet (no HTTP, no order, no count)",
            ["search", "median ms", "95 % ms", "max ms"],
            [["1 x 1 degree, one year, limit 100", *_times(calls)]],
        )


def test_coverage_page(server: Server, tmp_path: Path) -> None:
    before, rows = server.own_memory_mb(), []

    def first(what: str, path: str) -> None:
        start = time.perf_counter()
        body = server.get(path)
        rows.append([what, f"{(time.perf_counter() - start) * 1e3:.1f}", f"{len(body) / 1e3:,.1f}"])

    first("the page, the first time: the grid is read", "/coverage")
    first("the page again", "/coverage")
    first("the map tile of the world", "/coverage/tiles/tessera-v1/0/0/0.png")
    drawn = [(z, x, y) for z in (2, 4, 6) for x in range(1 << z) for y in range(1 << z)][::7]
    paths = [f"/coverage/tiles/tessera-v1/{z}/{x}/{y}.png" for z, x, y in drawn]
    sizes = []
    times = _times([lambda p=p: sizes.append(len(server.get(p))) for p in paths], 0)
    rows.append([f"{len(paths)} map tiles of zoom 2, 4 and 6, median", times[0], f"{max(sizes) / 1e3:,.1f}"])
    rows.append(["the slowest of them", times[2], ""])
    show(
        f"The coverage page over the planet; it took {server.own_memory_mb() - before:,.0f} MB",
        ["what", "ms", "kB (most)"],
        rows,
    )
    with open_tab() as tab:
        start = time.perf_counter()
        tab.page.goto(f"http://127.0.0.1:{server.port}/coverage", wait_until="networkidle")
        seconds = time.perf_counter() - start
        shot = tmp_path / "coverage.png"
        tab.page.screenshot(path=shot)
        assert not tab.problems
        assert not tab.elsewhere
    print(f"\nDrawn in Chromium in {seconds:.1f} s until the network was idle: {shot}")


def test_brute_force(http: httpx.Client, oracle: Oracle) -> None:
    """Every answer equals what numpy finds in the manifest's columns."""
    matched = checks.check_searches(http, oracle, QUESTIONS)
    checks.check_the_whole(http, oracle)
    checks.check_aggregations(http, oracle, boxes=5)
    documents = checks.check_browsing(http, oracle, 2021, areas=10)
    checks.check_coverage(http, oracle, 100)
    checks.check_coverage_table(planet_catalog(), oracle)
    print(
        f"\nEqual to brute force: {QUESTIONS} searches with {matched:,} matches, counts by year, zone,"
        f" coverage and degree of the world and of 5 boxes, {documents} documents of the browse tree,"
        " 100 places of the coverage page, the coverage table."
    )


def test_conformance(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}"
    check(validate(url, "tessera-v1", box(1, 46, 1.5, 46.4), *CLASSES), MISTAKES)
    print(f"\nstac-api-validator: no error in {', '.join(CLASSES)}")
