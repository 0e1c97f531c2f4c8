"""How to install what an optional feature needs, wherever this package itself was installed from."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, requires


def install_line(extra: str) -> str:
    """Return the command that installs the packages of an extra into this environment.

    It names the packages and not ``tessera-stac[extra]``, which an index need not have.

    Parameters
    ----------
    extra
        Its name, such as ``zarr``.
    """
    try:
        declared = requires("tessera-stac") or []
    except PackageNotFoundError:  # run from its sources
        declared = []
    wanted = [
        requirement.strip()
        for requirement, _, marker in (line.partition(";") for line in declared)
        if re.search(rf"\bextra == ['\"]{extra}['\"]", marker)
    ]
    return shlex.join([sys.executable, "-m", "pip", "install", *(wanted or [f"tessera-stac[{extra}]"])])
