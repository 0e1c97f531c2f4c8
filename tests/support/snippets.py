"""Runs the code of the documentation as a reader would: a fresh process, and every warning an error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import plain_environment

DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"
_BLOCK = re.compile(r"<!-- snippet: ([\w-]+) -->\n```(\w+)\n(.*?)```", re.DOTALL)
# What a user sees: Python hides deprecations from all but the script itself, and those that
# libraries raise about each other are not ours to mend.
STRICT = ("-W", "error", "-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning")


def snippets(document: Path = DOCUMENT) -> dict[str, tuple[str, str]]:
    """Return (language, text) of every block of a document, by name."""
    return {name: (language, text) for name, language, text in _BLOCK.findall(document.read_text())}


def localised(text: str, url: str, bbox: tuple[float, float, float, float]) -> str:
    """Return a block for another server and place."""
    assert "localhost:8000" in text
    spaced, dense = ", ".join(map(str, bbox)), ",".join(map(str, bbox))
    text = text.replace("0.0, 52.1, 0.2, 52.3", spaced).replace("0.0,52.1,0.2,52.3", dense)
    return text.replace("http://localhost:8000", url)


def run_python(text: str, folder: Path, *arguments: str, **environment: str) -> str:
    """Run a text in a folder and return what it printed; fails with its errors."""
    script = folder / "snippet.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, *STRICT, str(script), *arguments],
        cwd=folder,
        env=plain_environment(**environment),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
