"""A catalogue with pixels in a store: the converted tiles of :mod:`tests.support.converted`, built to S3."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.tile.datasets import dataset
from tests.support.converted import converted
from tests.support.s3_store import Store


def upload(store: Store, folder: Path, prefix: str) -> None:
    """Put every file below a folder, as any tool would."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts):
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            store.client.upload_file(
                str(path), store.bucket, key, ExtraArgs={"ContentType": kind, "ACL": "public-read"}
            )


def built(store: Store, prefix: str = "cat", **options: object) -> str:
    """Return the address of the catalogue; its sources lie in the bucket too."""
    made = converted()
    upload(store, made.catalog / "cogs", f"{prefix}/cogs")
    upload(store, made.embeddings, "source")
    out = f"{store.root}/{prefix}"
    given = {"url": "http://cat", "source_root": f"{store.root}/source", **options}
    build([str(made.root / "source")], out, BuildOptions(dataset("synthetic"), **given))  # type: ignore[arg-type]
    return out
