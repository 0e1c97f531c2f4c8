"""Pages load and run what they consist of, and nothing else: in a real Chromium, and by their headers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from api.settings import Settings
from catalog_builder.catalog.coverage.page import content_policy, coverage_html, coverage_policy, grid_of
from catalog_builder.catalog.open import open_index
from tests.support.chromium import Tab, open_tab
from tests.support.converted import converted
from tests.support.http_server import Server, serve

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("pictures")]
TITLE = "<script>document.title='forged'</script>&\"'"
PAGES = ("/coverage", "/api.html", "/browser/", "/data/cogs/synthetic/2024/grid_15.65_78.25/")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    empty = tmp_path_factory.mktemp("no-browser")
    settings = Settings(title=TITLE, description=TITLE, browser=empty)
    with serve(create_app(converted().catalog, settings)) as running:
        yield running


@pytest.fixture
def tab() -> Iterator[Tab]:
    with open_tab() as opened:
        yield opened


def directives(policy: str) -> dict[str, str]:
    return {name: rest for name, _, rest in (part.strip().partition(" ") for part in policy.split(";"))}


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_a_policy(server: Server, path: str) -> None:
    answer = httpx.get(server.url + path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    found = directives(answer.headers["content-security-policy"])
    assert found["default-src"] == "'none'"
    assert found["frame-ancestors"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "<script>document" not in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_nothing_of_a_page_is_blocked(server: Server, tab: Tab, path: str) -> None:
    """A blocked script or style would be an error in the console."""
    tab.page.goto(server.url + path, wait_until="networkidle")
    assert tab.problems == []
    assert tab.elsewhere == set()
    assert tab.page.title() != "forged"


def test_an_inserted_script_does_not_run(server: Server, tab: Tab) -> None:
    for path in ("/coverage", "/api.html"):
        tab.page.goto(server.url + path)
        ran = tab.page.evaluate(
            """async () => {
                 const script = document.createElement('script');
                 script.textContent = 'window.ran = true';
                 document.body.append(script);
                 document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.ran = true">');
                 await new Promise((done) => setTimeout(done, 500));
                 return window.ran === true;
               }"""
        )
        assert ran is False, path
        assert any("Content Security Policy" in problem for problem in tab.problems)


def test_the_map_still_draws(server: Server, tab: Tab) -> None:
    tab.page.goto(f"{server.url}/coverage", wait_until="networkidle")
    drawn = "[...document.querySelectorAll('canvas')].some((c) => c.width > 100)"
    assert tab.page.evaluate(drawn)
    assert any("/coverage/tiles/" in r.path for r in server.log)
    assert tab.problems == []


def test_the_map_as_a_file_has_its_policy_inside(tmp_path: Path, tab: Tab) -> None:
    index = open_index(str(converted().catalog))
    (record,) = index.collections.values()
    grid = grid_of(*index.coverage(record.ordinal), record.years)
    file = tmp_path / "coverage.html"
    coverage_html(file, [(record.id, record.dataset.title, grid)])
    assert coverage_policy() in file.read_text()
    tab.page.goto(file.as_uri(), wait_until="load")
    assert tab.problems == []


def test_what_is_inserted_is_not_allowed_by_its_own_digest() -> None:
    page = "<style>a</style><script>b</script>"
    assert content_policy(page) != content_policy(page + "<script>c</script>")
    assert "script-src 'none'" in content_policy("<style>a</style>")


def test_the_document_lists_every_endpoint(server: Server) -> None:
    text = httpx.get(f"{server.url}/api.html").text
    described = httpx.get(f"{server.url}/api").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert f"<code>{method.upper()} {path}</code>" in text
            for parameter in operation.get("parameters", ()):
                assert f"<code>{parameter['name']}</code>" in text
    assert "&lt;script&gt;" in text
