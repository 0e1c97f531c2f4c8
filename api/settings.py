"""All settings of the server, in one object.

A setting is passed to :func:`api.app.create_app`, or set by the environment variable of its name with the
prefix ``TESSERA_STAC_`` (``TESSERA_STAC_CATALOG=/srv/tessera``). :func:`settings_document` generates
``docs/settings.md``; a test compares the two.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from api.access import Access, Hrefs
from catalog_builder.errors import QueryError
from catalog_builder.stores.connections import DEFAULT as STORE_CONNECTIONS

PREFIX = "TESSERA_STAC_"
"""Prefix of the environment variables."""


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Parse comma-separated addresses and networks.

    >>> networks("127.0.0.1, 10.0.0.0/8")
    (IPv4Network('127.0.0.1/32'), IPv4Network('10.0.0.0/8'))

    Raises
    ------
    ValueError
        If one is neither.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


class Settings(BaseSettings):
    """Settings of the API server."""

    # Errors must not repeat what was set: readers and the database's password are among it.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    catalog: str | None = Field(
        default=None,
        description="The catalogue made by `tessera-stac build`: a folder, or `s3://bucket/prefix`.",
    )
    hrefs: Hrefs = Field(
        default="https",
        description="Default form of URLs of files in S3, where a request does not say: `https`, `s3` or"
        " `presigned` ([S3](s3.md)).",
    )
    presign: bool = Field(
        default=False,
        description="Allow `hrefs=presigned`: the server signs URLs of files in S3 with its own credentials,"
        " for whoever may see the item ([who may read then](access.md#presigned-urls)). Otherwise it is a"
        " 400 error.",
    )
    presign_seconds: int = Field(
        default=3600,
        ge=60,
        le=604_800,
        description="Lifetime of presigned URLs; responses that contain them are cached for at most half"
        " of it.",
    )
    s3_access: Access = Field(
        default="https",
        description="How `/data` and `/source` serve files in S3: `https` redirects to the bucket's public"
        " URL, `presigned` to a presigned URL, `proxy` relays the bytes.",
    )
    s3_refresh_seconds: float = Field(
        default=30.0,
        ge=0,
        description="Interval between checks for a new build of a catalogue in S3; 0 disables them.",
    )
    cache: Path | None = Field(
        default=None,
        description="Folder for the indexes of catalogues in S3, shared by all workers. By default"
        " `tessera-stac` in the user's cache folder.",
    )
    backend: Literal["index", "pgstac"] = Field(
        default="index",
        description="Where items are searched: `index`, the catalogue's own file, or `pgstac`, a PostgreSQL"
        " database filled by `tessera-stac export --pgstac`. With `pgstac`, COGs are served from the"
        " catalogue folder if one is given.",
    )
    pgstac_dsn: str = Field(
        default="",
        repr=False,
        description="Database of the backend `pgstac`, such as `postgresql://user:password@host/database`;"
        " if empty, `PGHOST`, `PGUSER` and so on are used.",
    )
    pgstac_connections: int = Field(
        default=10, ge=2, description="Maximum number of connections of one server process to the database."
    )
    title: str = Field(default="TESSERA embeddings", description="Title of the landing page.")
    description: str = Field(
        default="TESSERA embeddings of the Earth's land surface, one item per 0.1 degree tile and year,"
        " searchable through STAC and readable by range requests.",
        description="Description of the landing page (CommonMark).",
    )
    landing_id: str = Field(default="tessera-stac", description="`id` of the landing page.")
    root_path: Annotated[str, NoDecode] = Field(
        default="",
        pattern=r"^(/[^/?#\s]+)*$",
        description="Path under which a proxy publishes the server, such as `/stac`; empty for the root.",
    )
    trust_forwarded: bool = Field(
        default=True,
        description="Believe `Forwarded` and `X-Forwarded-*` of the trusted proxies. With false, nobody is"
        " believed.",
    )
    trusted_proxies: Annotated[str, NoDecode] = Field(
        default="127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
        description="Comma-separated addresses and networks of proxies whose `Forwarded` and `X-Forwarded-*`"
        " headers are believed: proto, host, port and prefix for links, `for` for the client's address"
        " ([behind a proxy](access.md#behind-a-proxy)). The default is this machine and private networks, as"
        " in compose and Kubernetes; narrow it if clients reach the server from such a network directly.",
    )
    root_url: str = Field(
        default="",
        pattern=r"^(https?://[A-Za-z0-9_.:\[\]-]+(/[^/?#\s]+)*/?)?$",
        description="URL under which the service is published, such as `https://stac.example.org/stac`: every"
        " link begins with it, whatever `Host` and forwarding headers say. It contains the path, so"
        " `TESSERA_STAC_ROOT_PATH` stays empty.",
    )
    private: Annotated[str, NoDecode] = Field(
        default="",
        description="Comma-separated ids of private collections, or patterns such as `lab-*`: they exist only"
        " for readers who may see them. `*` is all, and nothing is served without credentials then"
        " ([access](access.md)).",
    )
    readers_file: Path | None = Field(
        default=None,
        description="File of readers, one `name:hash:collections` per line, as"
        " `python -m api.readers.listed` writes them; read again when it changes.",
    )
    readers: Annotated[str, NoDecode] = Field(
        default="", repr=False, description="The same lines in the environment, separated by `;`."
    )
    oidc_issuer: str = Field(
        default="",
        pattern=r"^(https?://[^\s?#@]+)?$",
        description="OpenID Connect provider whose tokens (JWT) are accepted; needs the extra `oidc`.",
    )
    oidc_audience: str = Field(
        default="", description="The `aud` that its tokens must have; required with `oidc_issuer`."
    )
    oidc_claim: str = Field(
        default="tessera_collections",
        description="Claim of its tokens that lists the private collections to read: ids or patterns.",
    )
    shared_caches: bool = Field(
        default=True,
        description="Whether a cache may give a response to several users. Set it to false behind a proxy"
        " that asks for credentials; with private collections it is always false.",
    )
    client_rate: float = Field(
        default=0.0,
        ge=0,
        description="Searches, pages of items, counts, vectors, images and computed files that one client"
        " address may request per second on average, per server process; beyond it the response is 429 with"
        " `Retry-After`. 0 is no limit.",
    )
    client_burst: int = Field(
        default=100, ge=1, description="How many of these it may request at once, with `client_rate`."
    )
    default_limit: int = Field(default=10, ge=1, description="Items per page when `limit` is not given.")
    max_limit: int = Field(
        default=10_000,
        ge=1,
        description="Maximum number of items per page; a larger `limit` is reduced to this, as OGC API -"
        " Features requires.",
    )
    page_bytes: int = Field(
        default=32_000_000,
        ge=100_000,
        description="Maximum size of a page of items, before compression; a page that would be larger has"
        " fewer items than `limit`, and its `next` link goes on.",
    )
    max_bytes_in_flight: int = Field(
        default=128_000_000,
        ge=1_000_000,
        description="What a server process holds in memory of responses that are being sent and of bodies"
        " that are being read; beyond it, requests get 503 with `Retry-After`, and the slowest readers are"
        " dropped.",
    )
    stall_seconds: float = Field(
        default=30.0,
        gt=0,
        description="How long a client may read nothing of a response before its connection is closed.",
    )
    max_body_bytes: int = Field(
        default=4_000_000, ge=1000, description="Maximum size of a request body; a larger one gets 413."
    )
    body_seconds: float = Field(
        default=30.0, gt=0, description="Time within which a request body must arrive; a slower one gets 408."
    )
    stop_seconds: int = Field(
        default=30,
        ge=1,
        description="Time that responses in progress have to finish when the server is stopped, before they"
        " are cut off. What stops the server (systemd, Kubernetes, compose) must wait at least 10 s longer.",
    )
    max_url_bytes: int = Field(
        default=64_000, ge=1000, description="Maximum length of the query string; a longer one gets 414."
    )
    max_vertices: int = Field(
        default=200_000,
        ge=4,
        description="Maximum number of vertices of all geometries in a request; more are a 400 error.",
    )
    max_ids: int = Field(
        default=10_000, ge=1, description="Maximum number of `ids` in a request; more are a 400 error."
    )
    max_filter_nodes: int = Field(
        default=2_000,
        ge=10,
        description="Maximum number of operators and values in a filter; more are a 400 error.",
    )
    max_sorted: int = Field(
        default=2_000_000,
        ge=1,
        description="Maximum number of items sorted by a property without an index; more are a 400 error"
        " with advice. Sorting by collection, year or datetime has no such limit.",
    )
    search_seconds: float = Field(
        default=10.0, gt=0, description="Time limit of a search; beyond it the response is 503 with advice."
    )
    count_seconds: float = Field(
        default=0.1,
        ge=0,
        description="Time that counting may add to a search; beyond it `numberMatched` is an estimate.",
    )
    processes: bool = Field(
        default=True,
        description="Have two more processes per worker answer what takes long: one searches that scan,"
        " counts and pages of more than 1000 items, the other images, map tiles, vectors and chunks of"
        " arrays. They yield the processor to ordinary searches, start with the first such request, and take"
        " 100 to 400 MB each. With false, and with `pgstac`, threads of the worker do it.",
    )
    threads: int = Field(
        default=4, ge=1, description="Searches that may run at the same time, beside the event loop."
    )
    drawing_threads: int = Field(
        default=2,
        ge=1,
        description="Images, map tiles and generated documents that may be made at the same time.",
    )
    drawing_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Time limit of an image, a map tile or a generated document, with the wait for a thread;"
        " beyond it the response is 503.",
    )
    store_connections: int = Field(
        default=STORE_CONNECTIONS,
        ge=1,
        description="Requests that a process makes to one host of Zarr and Icechunk stores at the same time.",
    )
    vector_threads: int = Field(
        default=2,
        ge=1,
        description="Requests for vectors (`/points`, `/zonal`, `/position`, `/area`) that may be read at the"
        " same time.",
    )
    vector_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Time limit of reading the vectors of a request, with the wait for a thread; beyond it"
        " the response is 413, or 503 if no thread was free.",
    )
    vector_rows: int = Field(
        default=50_000,
        ge=1,
        description="Maximum number of points, polygons, or pixels of an area in a request, times years;"
        " more are 413.",
    )
    vector_pixels: int = Field(
        default=4_000_000,
        ge=1,
        description="Maximum number of pixels to look at in a request: those around points, or in the"
        " bounding boxes of polygons, times years; more are 413.",
    )
    vector_tiles: int = Field(
        default=2_000, ge=1, description="Maximum number of tile-years in a request; more are 413."
    )
    chunk_threads: int = Field(
        default=4,
        ge=1,
        description="Chunks of the zones' arrays (`/zarr`) that may be computed at the same time.",
    )
    chunk_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Time limit of a chunk, with the wait for a thread; beyond it the response is 503.",
    )
    chunk_cache_bytes: int = Field(
        default=128 << 20,
        ge=0,
        description="What a server process keeps of decoded pixels for the chunks beside them.",
    )
    max_waiting: int = Field(
        default=64,
        ge=0,
        description="Searches, as many drawings, and as many requests for vectors, that may wait for a"
        " thread; further ones get 503 with `Retry-After` at once.",
    )
    refresh_seconds: float = Field(
        default=1.0,
        ge=0,
        description="Minimum interval between checks for a new build of the catalogue. With 0 each request"
        " checks, and waits until the new build is in service; otherwise it is served from the previous one.",
    )
    cache_seconds: int = Field(
        default=60, ge=0, description="`max-age` of responses; with 0, caches revalidate each time."
    )
    compress: bool = Field(
        default=True, description="Compress responses (zstd, brotli, gzip) for clients that accept it."
    )
    browser: Path | None = Field(
        default=None,
        description="Folder of the STAC Browser served at `/browser/`, as `make browser` builds it. By"
        " default the one in the package; a folder without an `index.html` serves a page that says how to"
        " get it.",
    )
    access_log: bool = Field(default=False, description="Log one JSON line per request to standard output.")
    metrics: bool = Field(default=True, description="Serve Prometheus metrics at `/_mgmt/metrics`.")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        networks(text)  # says which is none
        return text

    @model_validator(mode="after")
    def _may_sign(self) -> Self:
        if self.hrefs == "presigned" and not self.presign:
            raise ValueError("hrefs: presigned needs presign=true, by which anybody may read what is signed")
        return self

    @model_validator(mode="after")
    def _says_for_whom(self) -> Self:
        if self.oidc_issuer and not self.oidc_audience:
            raise ValueError("oidc_audience: tokens for other services would be accepted; set it")
        return self

    @model_validator(mode="after")
    def _has_one_path(self) -> Self:
        if self.root_url and self.root_path:
            raise ValueError("root_path: root_url contains the path already; leave root_path empty")
        return self


def from_environment() -> Settings:
    """Return the settings in the environment.

    Raises
    ------
    QueryError
        Naming the variable that is wrong, and what was expected.
    """
    try:
        return Settings()
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False, include_input=False, include_context=False)
        name = "".join(f"{PREFIX}{str(part).upper()}: " for part in first["loc"][:1])
        raise QueryError(f"{name}{first['msg'].removeprefix('Value error, ')}") from None


def settings_document() -> str:
    """Return the documentation of the settings, as Markdown."""
    lines = [
        "# Server settings",
        "",
        "Environment variables, read when the server starts. `tessera-stac serve CATALOG` sets the first.",
        "Times are in seconds, sizes in bytes. Generated by `python -m api.settings > docs/settings.md`;",
        "a test keeps this page up to date.",
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
