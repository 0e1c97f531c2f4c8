"""Every setting is documented, and read from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.app import create_app
from api.settings import PREFIX, Settings, settings_document
from catalog_builder.cli.main import app
from catalog_builder.errors import CatalogError, TesseraError


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, f"setting {name} has no description"
        assert field.description.endswith("."), name


def test_the_documentation_is_up_to_date() -> None:
    """`python -m api.settings > docs/settings.md` makes it anew."""
    documented = Path(__file__).parents[2] / "docs" / "settings.md"
    assert documented.read_text() == settings_document()


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch, catalog: Path) -> None:
    monkeypatch.setenv(f"{PREFIX}CATALOG", str(catalog))
    monkeypatch.setenv(f"{PREFIX}MAX_LIMIT", "77")
    assert Settings().max_limit == 77
    assert create_app().title == "TESSERA embeddings"


def test_without_a_catalogue(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="TESSERA_STAC_CATALOG"):
        create_app()
    with pytest.raises(CatalogError, match="not a catalogue"):
        create_app(tmp_path)
    with pytest.raises(CatalogError, match="no such folder"):
        create_app(tmp_path / "nope")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"THREADS": "0"}, "TESSERA_STAC_THREADS: Input should be greater than or equal to 1"),
        ({"HREFS": "presigned"}, "hrefs: presigned needs presign=true"),
        ({"ROOT_URL": "https://user:hunter2@a.org"}, "TESSERA_STAC_ROOT_URL: String should match"),
        ({"OIDC_ISSUER": "https://user:hunter2@a.org"}, "TESSERA_STAC_OIDC_ISSUER: String should match"),
        ({"READERS": "anna:hunter2:*"}, "readers, line 1"),
        ({"TRUSTED_PROXIES": "10.0.0.0/99"}, "TESSERA_STAC_TRUSTED_PROXIES"),
        ({"CATALOG": "c", "ROOT_URL": "https://a.org", "ROOT_PATH": "/b"}, "root_url contains the path"),
    ],
)
def test_a_wrong_setting_is_one_line_without_secrets(
    given: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(f"{PREFIX}PGSTAC_DSN", "postgresql://user:hunter2@host/db")
    for name, value in given.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)
    done = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert isinstance(done.exception, TesseraError), done.output
    assert said in str(done.exception)
    assert "hunter2" not in str(done.exception) + done.output
    try:
        shown = repr(Settings())
    except ValueError as error:
        shown = f"{error} {error!r}"
    assert "hunter2" not in shown
