"""The demonstration in small, made by the command line alone: every kind of file that users get.

``tessera-stac demo`` makes 660 MB of tiles; here they lie near the pole, where a tile is narrow (21 MB),
and one of each kind is enough: converted with false colours, converted without, left as published.
Only ``python -m catalog_builder.cli`` is used, so modules may move.

What cannot be the same twice is masked, and nothing else (found by making it twice in two folders):

===========================================  ==========================================================
ledger: ``finished``, ``seconds``            times
ledger: ``versions``                         of libraries and of the program; see ``record.versions``
ledger: name of the file, order of lines     time and random digits; tiles are done side by side
``tessera_metadata.json``: ``generated_at``  a time
``convert --json``: ``seconds``, ``out``     a time, and the folder's path
===========================================  ==========================================================

Files below ``catalog/.versions/N/.state`` are not compared: they are the builder's own memory.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.unchanged.record import Entries, Entry, file_facts

URL = "http://stac.test"
"""Address that the catalogue is built for and served at."""
FIRST, SECOND, NARROW = "grid_-33.05_82.55", "grid_-32.95_82.55", "grid_-33.05_87.05"
TILES = (f"{FIRST}_2022", f"{FIRST}_2023", f"{FIRST}_2024", f"{SECOND}_2024", f"{NARROW}_2021")
AROUND = "-33.03,82.53,-32.97,82.55"
"""Touches both tiles."""
MTIME = 1_700_000_000
"""Of every file that is served: ETags of files are made of it."""

ROOT = Path(__file__).parents[2]
# Absolute, and yet the same in every folder: the address of the source is stored in the index, of
# whose content the ETags of all responses are made.
_HERE = "/proc/self/cwd"
_SOURCE = (
    "--source-root", f"{_HERE}/source/global_0.1_degree_representation",
    "--landmask-root", f"{_HERE}/source/global_0.1_degree_tiff_all",
)  # fmt: skip


def environment() -> dict[str, str]:
    """Return the environment of every process: nothing of the user's that changes what is made."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("TESSERA_", "GDAL_", "CPL_", "VSI_", "AWS_", "FORCE_COLOR"))
        and not k.lower().endswith("_proxy")
    }
    return kept | {
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "400",
        "NO_COLOR": "1",
        # Sums are made in the order of the kernel and the threads that a processor suggests.
        "OPENBLAS_CORETYPE": "Haswell",
        "OPENBLAS_NUM_THREADS": "1",
        "NPY_DISABLE_CPU_FEATURES": " ".join(_wide_simd()),
        # Counting stops after a tenth of a second otherwise, and a busy machine estimates.
        "TESSERA_STAC_COUNT_SECONDS": "60",
        "TESSERA_STAC_SEARCH_SECONDS": "60",
        # None: whether one is built here changes the page, and links to it.
        "TESSERA_STAC_BROWSER": "none",
        # To sign with; nothing is ever sent to the store.
        "AWS_ACCESS_KEY_ID": "unchanged",
        "AWS_SECRET_ACCESS_KEY": "unchanged",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _wide_simd() -> list[str]:
    """Return the instruction sets of this processor that other ones do not have: exp() rounds by them."""
    shown = np.show_config(mode="dicts")
    found = shown.get("SIMD Extensions", {}).get("found", []) if isinstance(shown, dict) else []
    return [name for name in found if name.startswith(("AVX512", "X86_V4"))]


class World:
    """The folder, and what was made in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: Entries = {}

    def make(self) -> Entries:
        """Make everything; return an entry for each command and each file."""
        with ThreadPoolExecutor(2) as two:
            tiles = [text for tile in TILES for text in ("--tile", tile)]
            # one after the other where the result of the one is the other's source
            sample = two.submit(self.run, "sample", "sample", "source", *tiles, "--workers", "1")
            (manifests,) = ROOT.glob("catalog_builder/**/sample-manifests")  # wherever the package has them
            shutil.copytree(manifests, self.folder / "manifests")
            self.run("build of real manifests", "build", "manifests", "--out", "catalog", "--url", URL)
            sample.result()
            self._same_times("source")  # items say when their source was updated
            self._synthetic()
            self._elsewhere()
            self._same_times("source", "catalog")
            helped = two.submit(self._options)
            list(two.map(lambda command: self.run(*command), _COMMANDS))
            helped.result()
        self._same_times("catalog")
        for path in sorted(self._files()):
            self._add_file(path)
        self._damage()
        return self.entries

    def _damage(self) -> None:
        """Put a wrong array in place of one that the catalogue lists: the server says 409."""
        path = self.folder / f"source/global_0.1_degree_representation/2021/{NARROW}/{NARROW}_scales.npy"
        np.save(path, np.zeros((2, 3), np.float32))
        os.utime(path, (MTIME, MTIME))

    def _synthetic(self) -> None:
        build = ("build", "source", "--out", "catalog", "--dataset", "synthetic", "--url", URL, *_SOURCE)
        convert = ("convert", "catalog", "--dataset", "synthetic", "--no-sync", "--workers")
        self.run("build of synthetic tiles", *build)
        self.run(
            "convert, colours fitted", *convert, "1", "--years", "2024", "--bbox", AROUND, "--fit-visual"
        )
        self.run("convert without colours", *convert, "0", "--years", "2023", "--no-visual")
        self.run("build with COGs", *build)
        self.run("build, nothing new", *build)

    def _elsewhere(self) -> None:
        """Add a collection whose files are in S3: the same ledger, said to be of another dataset."""
        manifests, ledger = self.folder / "elsewhere", self.folder / "elsewhere-ledger"
        manifests.mkdir()
        ledger.mkdir()
        for path in sorted((self.folder / "source" / "registry").glob("registry_202[34].txt")):
            (manifests / path.name).write_bytes(path.read_bytes())
        rows = "".join(p.read_text() for p in sorted(self.folder.glob("catalog/cogs/ledger/*.jsonl")))
        (ledger / "run.jsonl").write_text(re.sub(r'(?<=")synthetic(?=["/])', "v1.1-cam", rows))
        self.run(
            "build of files in S3", "build", "elsewhere", "--out", "catalog", "--dataset", "v1.1-cam",
            "--url", URL, "--ledger", "elsewhere-ledger", "--source-root", "s3://unchanged/npy/v1.1-cam",
            "--landmask-root", "s3://unchanged/landmasks/v1.1", "--data-root", "s3://unchanged/cogs/v1.1-cam",
            "--mirror", "lab=https://lab.example.org/cogs", "--source-mirror", "lab=https://lab.example.org/npy",
        )  # fmt: skip

    # --------------------------------------------------------------------------------------- commands

    def run(self, name: str, verb: str, *arguments: object) -> None:
        """Run a verb in the folder, and note what it printed as JSON, or its error, and its exit code."""
        said = [str(a) for a in arguments] + (["-q"] if verb not in ("info",) else []) + ["--json"]
        done = self._process([verb, *said])
        out = done.stdout.replace(str(self.folder), "FOLDER")
        out = re.sub(r'"(seconds)": [0-9.e-]+', r'"\1": 0', out)
        error = done.stderr.replace(str(self.folder), "FOLDER") if done.returncode else ""
        self.entries[f"command: {name}"] = Entry.of((out + error).encode(), {"exit code": done.returncode})
        if done.returncode and name not in _FAILING:
            raise AssertionError(f"{verb} {' '.join(said)}: exit code {done.returncode}\n{done.stderr}")

    def _options(self) -> None:
        """Note the names of each verb's options and arguments; what is said of them may change."""
        command = [sys.executable, "-c", _HELP, *_VERBS]
        done = subprocess.run(command, cwd=self.folder, env=environment(), capture_output=True, text=True)
        for verb, shown in zip(_VERBS, done.stdout.split("\f")[1:], strict=True):
            usage = re.search(r"Usage: (.*)", shown)
            # A row of the table begins with a star where it must be given, then flags, or a verb.
            rows = re.findall(
                r"^│ (?:[* ] +)?((?:-{1,2}[a-z][a-z-]*[ ,/]*)+|[a-z]+(?= {2}))(.*)", shown, re.MULTILINE
            )
            lines = [usage[1].strip() if usage else "no usage"]
            for names, said in rows:
                default = re.search(r"\[default: [^]]*\]", said)
                lines.append(" ".join([*names.split(), default[0] if default else ""]).strip())
            self.entries[f"command: {verb} --help"] = Entry.of("\n".join(lines).encode())

    def _process(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "catalog_builder.cli", *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment(), capture_output=True, text=True)

    # ------------------------------------------------------------------------------------------ files

    def _same_times(self, *names: str) -> None:
        for name in names:
            for path in (self.folder / name).rglob("*"):
                if path.is_file() and not path.is_symlink():
                    os.utime(path, (MTIME, MTIME))

    def _files(self) -> Iterator[Path]:
        """Yield the files to compare, the catalogue's by the names that users see."""
        for top in self.folder.iterdir():
            if top.name in ("catalog", "manifests", "elsewhere", "elsewhere-ledger"):
                continue
            yield from (p for p in ([top] if top.is_file() else top.rglob("*")) if p.is_file())
        for top in (self.folder / "catalog").iterdir():
            if not top.name.startswith("."):
                yield from (p for p in ([top] if top.is_file() else top.rglob("*")) if p.is_file())

    def _add_file(self, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        content = path.read_bytes()
        facts = file_facts(path, content)
        if "/ledger/" in name and name.endswith(".jsonl"):
            rows = sorted(json.dumps(_ledger_row(line)) for line in content.splitlines())
            content = "\n".join(rows).replace(str(self.folder), "FOLDER").encode()
            # its own name is a time and random digits
            first = json.loads(rows[0])
            name = f"{path.parent.relative_to(self.folder)}/(run of {first['job']}).jsonl"
        elif path.name == "tessera_metadata.json":
            content = re.sub(rb'"generated_at": "[^"]*"', b'"generated_at": ""', content)
        elif path.suffix == ".gz":
            facts = {"unpacked": Entry.of(gzip.decompress(content)).sha256[:16]}
        self.entries[f"file {name}"] = Entry.of(content, facts)


def _ledger_row(line: bytes) -> dict[str, object]:
    row: dict[str, object] = json.loads(line)
    return row | {"finished": "", "seconds": 0, "versions": ""}


_CATALOG = ("catalog", "--dataset", "synthetic")
_COMMANDS: tuple[tuple[object, ...], ...] = (
    ("info", "info", "catalog"),
    ("validate", "validate", "catalog", "--no-pixels", "--workers", "1"),
    ("validate COGs", "validate", "catalog/cogs", "--workers", "1"),
    ("coverage", "coverage", "catalog", "--out", "made/coverage.png", "--width", "300"),
    ("coverage of a region", "coverage", "catalog", "--region=-2,51,0,52.5", "--years", "2022-2024",
     "--out", "made/coverage.html"),
    ("preview, PNG", "preview", *_CATALOG, "--region=-33.1,82.5,-32.9,82.6", "--size", "150",
     "--out", "made/preview.png"),
    ("preview, GeoTIFF", "preview", *_CATALOG, f"--region={AROUND}", "--size", "64",
     "--year", "2022", "--out", "made/preview.tif"),
    ("preview, HTML", "preview", *_CATALOG, f"--region={AROUND}", "--size", "64",
     "--out", "made/preview.html"),
    ("export to ndjson", "export", *_CATALOG, "--to", "ndjson", "--out", "made/items.ndjson"),
    ("export to ndjson.gz", "export", "catalog", "--to", "ndjson", "--out", "made/real.ndjson.gz",
     "--bbox=-0.1,52,0.3,52.3", "--years", "2023-2024", "--url", "https://elsewhere.test/stac"),
    ("export to ndjson.zst", "export", "catalog", "--to", "ndjson", "--out", "made/s3.ndjson.zst",
     "--dataset", "v1.1-cam"),
    # Of years that are converted: a file without a COG beside others with some cannot be exported today.
    ("export to geoparquet, COGs", "export", *_CATALOG, "--to", "geoparquet", "--out", "made/geoparquet",
     "--years", "2023-2024"),
    ("export to geoparquet", "export", "catalog", "--dataset", "v1", "--to", "geoparquet",
     "--out", "made/geoparquet", "--bbox=-0.5,51,0.5,52"),
    ("export to a static tree", "export", *_CATALOG, "--to", "static", "--out", "made/static"),
    ("get, GeoTIFF", "get", *_CATALOG, "--year", "2024", f"--bbox={AROUND}", "--bands", "0,7,100-102",
     "--out", "made/geotiff"),
    ("get, COG", "get", *_CATALOG, "--year", "2023", f"--bbox={AROUND}", "--bands", "0-2", "--format", "cog",
     "--out", "made/cog"),
    ("get, NetCDF", "get", *_CATALOG, "--years", "2022", f"--bbox={AROUND}", "--bands", "0-2",
     "--format", "netcdf", "--out", "made/netcdf"),
    ("get, Zarr", "get", *_CATALOG, "--years", "2022-2024", f"--bbox={AROUND}", "--bands", "5",
     "--format", "zarr", "--out", "made/zarr"),
    ("get, .npy by tiles", "get", *_CATALOG, f"--bbox={AROUND}", "--dtype", "int8", "--tiles",
     "--format", "npy", "--bands", "0-15", "--out", "made/npy"),
    ("get, estimate", "get", *_CATALOG, f"--bbox={AROUND}", "--dry-run", "--out", "made/none"),
    ("get, nothing there", "get", *_CATALOG, "--bbox=100,10,101,11", "--out", "made/none"),
    ("get, no region", "get", *_CATALOG, "--out", "made/none"),
    ("build, no such dataset", "build", "source", "--out", "made/none", "--dataset", "v7"),
    ("build, no such source", "build", "nowhere", "--out", "made/none"),
    ("convert, float32 on the source's grid", "convert", "source", "--dataset", "synthetic",
     "--years", "2021", *_SOURCE, "--out", "made/float32", "--profile", "float32",
     "--grid", "source", "--overviews", "nearest",
     "--compression", "deflate", "--interleave", "band", "--workers", "0", "--no-sync", "--verify"),
    ("convert, estimate", "convert", "source", "--dataset", "synthetic", *_SOURCE, "--out", "made/none",
     "--workers", "1", "--dry-run"),
)  # fmt: skip
"""Name, verb and arguments; they read the catalogue and nothing of each other."""
_FAILING = ("get, nothing there", "get, no region", "build, no such dataset", "build, no such source")
_VERBS = (
    "tessera-stac", "build", "info", "coverage", "preview", "serve", "export", "sample", "demo", "get",
    "validate", "convert",
)  # fmt: skip
_HELP = """
import sys
from catalog_builder.cli import main

for verb in sys.argv[1:]:
    print(end="\\f", flush=True)
    sys.argv = ["tessera-stac", *([verb] if verb != "tessera-stac" else []), "--help"]
    try:
        main()
    except SystemExit as done:
        assert not done.code
"""
