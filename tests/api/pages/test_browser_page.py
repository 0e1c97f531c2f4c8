"""``/browser`` of a server without STAC Browser."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.testclient import TestClient

from api.http.front import Front
from api.http.metrics import Metrics
from api.pages.browser import add_browser
from api.settings import Settings


def client(dist: Path) -> TestClient:
    app = FastAPI()
    settings = Settings(browser=dist)
    assert add_browser(app, settings) is (dist / "index.html").exists()
    app.add_middleware(Front, settings=settings, metrics=Metrics())
    return TestClient(app, base_url="https://tiles.example", client=("127.0.0.1", 50000))


def test_page_says_how_to_get_it(tmp_path: Path) -> None:
    answer = client(tmp_path).get("/browser", headers={"x-forwarded-prefix": "/stac"})
    assert answer.status_code == 200
    assert "make browser" in answer.text
    assert "#/external/https:/tiles.example/stac/" in answer.text
    assert client(tmp_path).get("/browser/js/app.js").status_code == 404


def test_files_below_the_folder_only(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    (dist / "js").mkdir(parents=True)
    (dist / "index.html").write_text("<p>here")
    (dist / "js" / "app.1a.js").write_text("1;" * 1000)
    (tmp_path / "secret.txt").write_text("no")
    http = client(dist)
    assert http.get("/browser/").text == "<p>here"
    assert http.get("/browser/js/app.1a.js").headers["cache-control"].endswith("immutable")
    for path in ("../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "js", "js/", "/etc/passwd"):
        assert http.get(f"/browser/{path}").status_code == 404, path
