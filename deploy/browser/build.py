"""Build STAC Browser into ``api/browser_dist``, where the server mounts it at ``/browser``.

Run as ``make browser`` or ``python deploy/browser/build.py``; needs node >= 18 and npm. Nothing of it is
in git but this recipe and ``package-lock.json``: the package is checked against the digest below, npm
checks every dependency against the lock, so the same files come out everywhere. One build serves at any
path: its own addresses are relative, and what differs between servers comes from ``config.js``, which
the server writes per request.

The result is kept in ``.cache/``, by a checksum of this folder; a second run copies it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = "@radiantearth/stac-browser"
VERSION = "4.0.1"
INTEGRITY = "sha512-Nu3pZzkJXfaS8JpsY1SjABMgr8W9swNmVa8RJoRetuDeMQ1+YibBRluC7G9ugzE/QECHD/9n3/8W/Ksz+UAC7w=="
"""Of the package as npm publishes it."""
OL_STAC = "1.1.0"
"""The package asks for ^1.1.0, but later ones import names that its OpenLayers does not have."""

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = ROOT / "api" / "browser_dist"
CACHE = ROOT / ".cache"
NOTICES = "THIRD_PARTY_NOTICES.txt"
_LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice)([-.].*)?", re.IGNORECASE)
_INSTALLED = re.compile(r"node_modules/(?:@[^/ ]+/)?[^/ ]+")


def main() -> int:
    """Build, or copy what was built before."""
    parser = argparse.ArgumentParser(description="Build STAC Browser for the server's /browser page.")
    parser.add_argument("--out", type=Path, default=TARGET, help="where it goes (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="build although there is a copy in .cache")
    given = parser.parse_args()
    kept = CACHE / f"stac-browser-{fingerprint()}"
    if given.force or not kept.is_dir():
        if reason := missing_tool():
            print(f"error: {reason}", file=sys.stderr)
            return 1
        build(kept)
    replace_folder(kept, given.out)
    files = [p for p in given.out.rglob("*") if p.is_file()]
    print(f"{given.out}: STAC Browser {VERSION}, {len(files)} files, {_megabytes(files):.1f} MB")
    return 0


def fingerprint() -> str:
    """Return a checksum of what decides the result: this script and the lock."""
    parts = (Path(__file__).read_bytes(), (HERE / "package-lock.json").read_bytes())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def missing_tool() -> str | None:
    """Return why this machine cannot build, None if it can."""
    absent = [name for name in ("node", "npm") if shutil.which(name) is None]
    if absent:
        return f"building STAC Browser needs {' and '.join(absent)} (node 18 or newer, with npm)"
    version = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout  # noqa: S607
    if int(version.strip().removeprefix("v").partition(".")[0]) < 18:
        return f"building STAC Browser needs node 18 or newer, found {version.strip()}"
    return None


def build(kept: Path) -> None:
    """Build into a folder of the cache, which appears when all is done."""
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="stac-browser-building-") as folder:
        work = Path(folder)
        source = unpack(fetch(work), work)
        prepare(source)
        _npm(["ci", "--no-audit", "--no-fund", "--ignore-scripts"], source)
        # The report lists every module that is in the result: the notices follow from it.
        options = ["--historyMode=hash", "--pathPrefix=./", "--noSourceMaps", "--dest", "dist"]
        _npm(["run", "build", "--", *options, "--report-json"], source)
        report = source / "dist" / "report.json"
        packages = bundled(report.read_text(), source)
        report.unlink()
        (source / "dist" / NOTICES).write_text(notices(packages))
        (source / "dist" / "config.js").unlink(missing_ok=True)  # the server writes it
        replace_folder(source / "dist", kept)


def fetch(work: Path) -> Path:
    """Fetch the package and check it against the pinned digest."""
    said = _npm(["pack", f"{PACKAGE}@{VERSION}", "--json"], work, capture=True)
    archive = work / str(json.loads(said)[0]["filename"])
    digest = hashlib.sha512(archive.read_bytes()).digest()
    found = f"sha512-{base64.b64encode(digest).decode()}"
    if found != INTEGRITY:
        raise SystemExit(f"error: {PACKAGE}@{VERSION}: expected {INTEGRITY}, found {found}")
    return archive


def unpack(archive: Path, work: Path) -> Path:
    """Unpack the package and return its folder."""
    with tarfile.open(archive) as tar:
        # Debian 12's Python, 3.11.2, has no filters; the archive is the one whose digest is pinned.
        options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(work, **options)  # type: ignore[arg-type]  # noqa: S202
    return work / "package"


def prepare(source: Path) -> None:
    """Put our lock and our two changes in place; fail if the package is not as expected."""
    shutil.copy(HERE / "package-lock.json", source / "package-lock.json")
    replace_once(source / "package.json", '"ol-stac": "^1.1.0"', f'"ol-stac": "{OL_STAC}"')
    replace_once(
        source / "public" / "index.html",
        '<!-- <script defer="defer" src="/config.js"></script> -->',
        '<script defer="defer" src="./config.js"></script>',
    )


def replace_once(file: Path, old: str, new: str) -> None:
    """Replace a text that occurs exactly once in a file."""
    text = file.read_text()
    if text.count(old) != 1:
        raise SystemExit(f"error: {file.name}: expected '{old}' once, found it {text.count(old)} times")
    file.write_text(text.replace(old, new))


def bundled(report: str, source: Path) -> list[Path]:
    """Return the folders of the installed packages that a webpack report names, and the browser's own."""
    names = {match for line in set(_names(json.loads(report))) for match in _paths(line)}
    names.add("node_modules/webpack")  # its run-time code has no module name of its own
    folders = {source / name for name in names}
    return [source, *sorted(folder for folder in folders if (folder / "package.json").is_file())]


def _names(node: Any) -> Iterator[str]:
    """Yield the names of all modules in a report, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("name", "identifier", "nameForCondition") and isinstance(value, str):
                yield value
            else:
                yield from _names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _names(value)


def _paths(name: str) -> Iterator[str]:
    """Yield the package folders in a module's name, with those they are nested in: ``a/node_modules/b``."""
    for chain in re.findall(r"(?:node_modules/(?:@[^/ !|]+/)?[^/ !|]+/(?:[^ !|]*?/)??)+", name):
        at = [m.end() for m in _INSTALLED.finditer(chain)]
        yield from (chain[:end] for end in at)


def notices(folders: list[Path]) -> str:
    """Return the names, licences and licence texts of packages."""
    parts = [
        f"STAC Browser {VERSION} and what is bundled with it: {len(folders)} packages, each with its own"
        " licence.\n"
    ]
    for folder in folders:
        about = json.loads((folder / "package.json").read_text())
        licence = about.get("license") or about.get("licenses") or "not stated"
        if not isinstance(licence, str):
            licence = json.dumps(licence)
        lines = ["=" * 100, f"{about.get('name', folder.name)} {about.get('version', '')}: {licence}"]
        home = about.get("homepage") or about.get("repository") or ""
        lines.append(str(home.get("url", "") if isinstance(home, dict) else home))
        author = about.get("author")
        if author:
            lines.append(f"Author: {author.get('name', '') if isinstance(author, dict) else author}")
        texts = sorted(p for p in folder.iterdir() if p.is_file() and _LICENCE_FILE.fullmatch(p.name))
        lines += [f"\n{text.read_text(errors='replace').strip()}" for text in texts]
        parts.append("\n".join(line for line in lines if line) + "\n")
    return "\n".join(parts)


def replace_folder(source: Path, target: Path) -> None:
    """Copy a folder to a place, in one step for whoever reads there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    shutil.copytree(source, new, dirs_exist_ok=True)
    new.chmod(0o755)
    if target.exists():
        shutil.rmtree(target)
    new.rename(target)


def _npm(arguments: list[str], folder: Path, *, capture: bool = False) -> str:
    """Run npm; its output is shown only when it fails."""
    command = ["npm", "--loglevel=error", *arguments]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
        raise SystemExit(f"error: '{' '.join(command)}' failed with code {done.returncode}")
    return done.stdout if capture else ""


def _megabytes(files: list[Path]) -> float:
    return sum(p.stat().st_size for p in files) / 1e6


if __name__ == "__main__":
    sys.exit(main())
