"""Every setting of the server, in one object.

A setting is given to :func:`api.app.create_app`, or by the environment variable of its name with the
prefix ``TESSERA_STAC_`` (``TESSERA_STAC_CATALOG=/srv/tessera``). :func:`settings_document` is the
documentation in ``docs/settings.md``; a test compares them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from api.access import Access, Hrefs

PREFIX = "TESSERA_STAC_"
"""Of the environment variables."""


class Settings(BaseSettings):
    """Settings of the API server."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    catalog: str | None = Field(
        default=None,
        description="The catalogue that `tessera-stac build` made: a folder, or `s3://bucket/prefix`.",
    )
    hrefs: Hrefs = Field(
        default="https",
        description="Which addresses files in S3 have where a request does not say: `https`, `s3` or"
        " `presigned` ([S3](s3.md)).",
    )
    presign_seconds: int = Field(
        default=3600,
        ge=60,
        le=604_800,
        description="How long presigned addresses are good for; answers are kept half of it at most.",
    )
    s3_access: Access = Field(
        default="https",
        description="How `/data` and `/source` answer for files in S3: `https` redirects to the bucket's"
        " public address, `presigned` to a signed one, `proxy` passes the bytes on.",
    )
    s3_refresh_seconds: float = Field(
        default=30.0,
        ge=0,
        description="How often to look whether a catalogue in S3 was built anew; 0 never looks.",
    )
    cache: Path | None = Field(
        default=None,
        description="Folder for the indexes of catalogues in S3; workers share it. By default"
        " `tessera-stac` in the user's cache folder.",
    )
    backend: Literal["index", "pgstac"] = Field(
        default="index",
        description="Where items are searched: `index`, the catalogue's own file, or `pgstac`, a PostgreSQL"
        " database that `tessera-stac export --pgstac` filled. With `pgstac`, COGs are served from the"
        " catalogue folder if one is given.",
    )
    pgstac_dsn: str = Field(
        default="",
        description="Database of the backend `pgstac`, as `postgresql://user:password@host/database`; empty"
        " takes `PGHOST`, `PGUSER` and so on.",
    )
    pgstac_connections: int = Field(
        default=10, ge=2, description="Most connections of a server process to the database."
    )
    title: str = Field(default="TESSERA embeddings", description="Title of the landing page.")
    description: str = Field(
        default="TESSERA embeddings of the Earth's land surface, one item per 0.1 degree tile and year,"
        " searched by STAC and read by range.",
        description="Description of the landing page (CommonMark).",
    )
    landing_id: str = Field(default="tessera-stac", description="`id` of the landing page.")
    root_path: Annotated[str, NoDecode] = Field(
        default="",
        pattern=r"^(/[^/?#\s]+)*$",
        description="Path under which a proxy publishes the server, as `/stac`; empty at the root.",
    )
    trust_forwarded: bool = Field(
        default=True,
        description="Believe `Forwarded` and `X-Forwarded-*` (proto, host, port, prefix) when links are made."
        " Switch off where clients reach the server without a proxy that sets them.",
    )
    default_limit: int = Field(default=10, ge=1, description="Items on a page when `limit` is not given.")
    max_limit: int = Field(
        default=10_000,
        ge=1,
        description="Most items on a page; a larger `limit` is cut to this, as OGC asks.",
    )
    max_body_bytes: int = Field(
        default=4_000_000, ge=1000, description="Longest request body; a longer one is answered 413."
    )
    body_seconds: float = Field(
        default=30.0, gt=0, description="Time for a request body to arrive; a slower one is answered 408."
    )
    stop_seconds: int = Field(
        default=30,
        ge=1,
        description="Time for responses under way when the server is told to stop; then they are cut off."
        " What stops the server (systemd, Kubernetes, compose) must wait at least 10 s longer.",
    )
    max_url_bytes: int = Field(
        default=64_000, ge=1000, description="Longest query string; a longer one is answered 414."
    )
    max_vertices: int = Field(
        default=200_000,
        ge=4,
        description="Most vertices of all geometries in a request; more are answered 400.",
    )
    max_ids: int = Field(default=10_000, ge=1, description="Most `ids` in a request; more are answered 400.")
    max_filter_nodes: int = Field(
        default=2_000, ge=10, description="Most operators and values in a filter; more are answered 400."
    )
    max_sorted: int = Field(
        default=2_000_000,
        ge=1,
        description="Most items that are sorted by a property without an index; more are answered 400"
        " with advice. Sorting by collection, year or datetime has no such bound.",
    )
    search_seconds: float = Field(
        default=10.0, gt=0, description="Time limit of a search; beyond it the answer is 503 with advice."
    )
    count_seconds: float = Field(
        default=0.1,
        ge=0,
        description="Time that counting may take beside a search; beyond it `numberMatched` is an estimate.",
    )
    threads: int = Field(default=4, ge=1, description="Searches that may run at once beside the event loop.")
    refresh_seconds: float = Field(
        default=1.0,
        ge=0,
        description="How often, at most, to look whether the catalogue was built anew. With 0 each request"
        " looks, and waits until a new build is in force; otherwise it is answered from the one before.",
    )
    cache_seconds: int = Field(
        default=60, ge=0, description="`max-age` of answers; 0 makes caches ask each time."
    )
    compress: bool = Field(
        default=True, description="Compress answers (zstd, brotli, gzip) for clients that ask."
    )
    access_log: bool = Field(default=False, description="Log one JSON line per request to standard output.")
    metrics: bool = Field(default=True, description="Serve Prometheus metrics at `/_mgmt/metrics`.")


def settings_document() -> str:
    """Return the documentation of the settings, as Markdown."""
    lines = [
        "# Settings of the server",
        "",
        "Environment variables, read when the server starts. `tessera-stac serve CATALOG` sets the first.",
        "Made by `python -m api.settings > docs/settings.md`; a test keeps it true.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(settings_document(), end="")
