"""Storage of a dataset's fitted colours, beside its COGs."""

from __future__ import annotations

from catalog_builder import storage
from catalog_builder.errors import ConvertError
from catalog_builder.item.basis import BASIS_FILE, Basis


def basis_url(out: str, dataset: str) -> str:
    """Return the location of a dataset's basis below an output: a path, or an s3:// URL."""
    return storage.join(out, dataset, BASIS_FILE)


def load_basis(out: str, dataset: str) -> Basis | None:
    """Return a dataset's stored basis, None if there is none.

    Raises
    ------
    ConvertError
        If it cannot be used.
    """
    url = basis_url(out, dataset)
    if not storage.exists(url):
        return None
    basis = Basis.from_json(storage.read_bytes(url))
    if basis.dataset != dataset:
        raise ConvertError(f"{url}: fitted to {basis.dataset}, not to {dataset}")
    return basis


def store_basis(out: str, basis: Basis) -> str:
    """Store a basis and return its path or URL."""
    url = basis_url(out, basis.dataset)
    with storage.write_atomic(url) as path:
        path.write_text(basis.to_json())
    return url
