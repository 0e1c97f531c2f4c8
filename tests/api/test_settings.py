"""Every setting is documented, and read from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.app import create_app
from api.settings import PREFIX, Settings, settings_document
from catalog_builder.errors import CatalogError


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
