"""Which code this is: the version, the commit that it was made from, and a digest of the code itself.

A wheel carries the commit in a file, which ``hatch_build.py`` writes into it. In a checkout the commit is
read from ``.git``, without the program git: the machines of a cluster often lack it. The digest tells apart
what a commit cannot: checkouts with changes of their own.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).parent
RECORD = "commit.txt"
"""The file in a wheel: the commit, and ``changed`` behind it if there were changes beside it."""
_CHANGED = "changed"


def full_version() -> str:
    """Return version, commit and digest: equal where the same code runs.

    Returns
    -------
    str
        As ``0.2.0+g1a2b3c4d5e6f.9f8e7d6c5b4a`` (PEP 440); without the commit where none is known.
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
    """Return the commit that this code is of, 40 hexadecimal digits; empty if it is not known."""
    return _recorded()[0] or head(PACKAGE.parent)


def is_changed() -> bool:
    """Return whether the code differs from its commit; in a checkout only git can tell."""
    found, change = _recorded()
    return change == _CHANGED if found else has_changes(PACKAGE.parent)


def record(root: Path, known: str) -> str:
    """Return what a wheel that is built from a folder shall say; empty if there is nothing to say.

    Parameters
    ----------
    root
        The folder with ``pyproject.toml``.
    known
        The commit where the folder has no ``.git``, as in an image's build; or empty.
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
    """Return whether git is there and says that the packages in a folder differ from its commit."""
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return False
    command = [git, "-C", str(root), "status", "--porcelain", "--", "catalog_builder", "api"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return bool(done.stdout.strip())


def _recorded() -> tuple[str, str]:
    """Return a wheel's commit and what stands behind it."""
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
