"""Identifies the code: the version, the commit it was built from, and a digest of the code itself.

A wheel contains the commit in a file that ``hatch_build.py`` writes. In a checkout the commit is
read from ``.git`` without running git, which machines of a cluster often lack. The digest distinguishes
what a commit cannot: checkouts with local changes.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).parent
RECORD = "commit.txt"
"""The file in a wheel: the commit, followed by ``changed`` if there were uncommitted changes."""
_CHANGED = "changed"


def full_version() -> str:
    """Return version, commit and digest, which are equal where the same code runs.

    Returns
    -------
    str
        Such as ``0.2.0+g1a2b3c4d5e6f.9f8e7d6c5b4a`` (PEP 440); without the commit if it is not known.
    """
    from catalog_builder import __version__

    parts = [f"g{commit()[:12]}" if commit() else "", _digest()]
    return f"{__version__}+{'.'.join(p for p in parts if p)}"


def described() -> str:
    """Return the same for people: ``0.2.0 (commit 1a2b3c4d5e6f, with uncommitted changes)``."""
    from catalog_builder import __version__

    about = f"commit {commit()[:12]}" if commit() else "commit unknown"
    return f"{__version__} ({about}{', with uncommitted changes' if is_changed() else ''})"


def commit() -> str:
    """Return the commit of this code, 40 hexadecimal digits; empty if it is not known."""
    return _recorded()[0] or head(PACKAGE.parent)


def is_changed() -> bool:
    """Return whether the code differs from its commit; in a checkout only git can tell."""
    found, change = _recorded()
    return change == _CHANGED if found else has_changes(PACKAGE.parent)


def record(root: Path, known: str) -> str:
    """Return the commit record for a wheel built from a folder; empty if the commit is not known.

    Parameters
    ----------
    root
        The folder with ``pyproject.toml``.
    known
        The commit, for a folder without ``.git``, as in a container image build; or empty.
    """
    found = known or head(root)
    return f"{found} {_CHANGED}" if found and has_changes(root) else found


def head(root: Path) -> str:
    """Return the commit that is checked out in a folder with ``.git``; empty if there is none."""
    git = root / ".git"
    try:
        if git.is_file():  # a worktree of `git worktree`
            git = root / git.read_text().removeprefix("gitdir:").strip()
        found = (git / "HEAD").read_text().strip()
        if not found.startswith("ref:"):
            return found
        ref = found.removeprefix("ref:").strip()
        shared = git / "commondir"
        common = git / shared.read_text().strip() if shared.is_file() else git
        if (common / ref).is_file():
            return (common / ref).read_text().strip()
        lines = (common / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in lines if line.endswith(f" {ref}")), "")
    except OSError:
        return ""


def has_changes(root: Path) -> bool:
    """Return whether git is installed and reports that the packages in a folder differ from its commit."""
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return False
    command = [git, "-C", str(root), "status", "--porcelain", "--", "catalog_builder", "api"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return bool(done.stdout.strip())


def _recorded() -> tuple[str, str]:
    """Return a wheel's commit and the word that follows it."""
    try:
        found, _, change = (PACKAGE / RECORD).read_text().strip().partition(" ")
    except OSError:
        return "", ""
    return found, change


def _digest() -> str:
    """Return 12 hexadecimal digits of a SHA-256 of this package's modules."""
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()[:12]
