"""Hooks of mkdocs: the site has the repository's layout, so that links are good in both."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).parents[1]
SHOWN = ("*.md", "docs/*.md", "docs/images/*", "deploy/**/*", "examples/**/*")
"""Pages, and the files that they link to."""
NOT_SHOWN = re.compile(r"deploy/browser/|__pycache__|\.pyc$")
COMMANDS = "docs/commands.md"
"""The page that is generated, from the command line itself."""
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?\.?([^<]*)</code>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give mkdocs the files of the repository, by their paths in it, beside the theme's and the plugins'."""
    found = Files([f for f in files if f.src_dir != config.docs_dir])
    paths = {path for pattern in SHOWN for path in ROOT.glob(pattern) if path.is_file()}
    for path in sorted(paths):
        name = path.relative_to(ROOT).as_posix()
        if not NOT_SHOWN.search(name):
            found.append(File.generated(config, name, abs_src_path=str(path)))
    found.append(File.generated(config, COMMANDS, content=_commands()))
    return found


def on_page_content(html: str, **_: object) -> str:
    """Show the roles of docstrings, which are Sphinx's, as plain names."""
    return _ROLE.sub(r"<code>\1</code>", html)


def _commands() -> str:
    """Return the reference of the command line, as typer writes it."""
    command = [sys.executable, "-m", "typer", "catalog_builder.cli.main", "utils", "docs"]
    words = ["--name", "tessera-stac", "--title", "Commands"]
    return subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603
