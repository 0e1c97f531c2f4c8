"""The documentation site, built as `make docs` builds it: whole, of this checkout, and on its own."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from catalog_builder.cli import app

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.service


class _Loads(HTMLParser):
    """What a page loads by itself: links that a reader follows are not among them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video") and given.get("src"):
            self.found.append(str(given["src"]))
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(str(given.get("href")))


def _build(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", out]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = _build(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stderr
    return out


def test_a_page_for_every_document(site: Path) -> None:
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md")):
        page = site / path.relative_to(ROOT).with_suffix(".html")
        if path.name == "README.md":
            page = page.with_name("index.html")
        assert page.is_file(), path
    assert "Two commands" in (site / "index.html").read_text(), "the README comes first"


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    page = (site / "docs" / "commands.html").read_text()
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"tessera-stac {command.callback.__name__}</code>" in page
    assert "--source-root" in page


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "docs" / "python.html").read_text()
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE)
    assert len(names) > 20
    for name in names:
        assert f'id="{name}' in page, name
    assert "Parameters" in page
    assert not re.search(r":(class|func|mod):", page), "roles are Sphinx's"


def test_what_is_loaded_is_there_and_nothing_comes_from_elsewhere(site: Path) -> None:
    pages = [p for p in site.rglob("*.html") if p.name != "404.html"]  # shown at any URL
    assert len(pages) > 20
    for page in pages:
        loads = _Loads()
        loads.feed(page.read_text())
        assert loads.found
        for url in loads.found:
            assert not re.match(r"(\w+:)?//", url), (page, url)
            assert (page.parent / url.partition("#")[0].partition("?")[0]).exists(), (page, url)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text()), style


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    """In a copy of the configuration whose navigation names a page that is not there."""
    text = (ROOT / "mkdocs.yml").read_text().replace("Start: README.md", "Start: NOWHERE.md")
    for name in ("docs_dir: docs", "hooks: [docs/site.py]", "paths: [.]"):
        assert name in text
    text = text.replace("docs_dir: docs", f"docs_dir: {ROOT}/docs").replace("paths: [.]", f"paths: [{ROOT}]")
    config = tmp_path / "mkdocs.yml"
    config.write_text(text.replace("docs/site.py", f"{ROOT}/docs/site.py"))
    done = _build(config, tmp_path / "site")
    assert done.returncode != 0
    assert "NOWHERE.md" in done.stderr
