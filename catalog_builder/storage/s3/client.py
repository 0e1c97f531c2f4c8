"""The S3 client of this process: endpoint, credentials and error messages.

Configured in the usual way, with boto3's environment variables and files, and with GDAL's names for the
same settings, so that one environment works for both (``docs/s3.md``).
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import quote, urlsplit

from catalog_builder.errors import StorageError
from catalog_builder.storage import retry
from catalog_builder.storage.address import USER_AGENT, bucket_key, published_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    import boto3
    from botocore.credentials import Credentials
    from mypy_boto3_s3 import S3Client

_YES = frozenset({"YES", "TRUE", "ON", "1"})
_NO = frozenset({"NO", "FALSE", "OFF", "0"})


@dataclass(frozen=True, slots=True)
class S3Settings:
    """The endpoint and the credentials to use."""

    endpoint: str | None = None
    """Endpoint of a store other than Amazon's; None leaves it to boto3's configuration."""
    region: str | None = None
    profile: str | None = None
    """Section of the credentials and config files."""
    anonymous: bool = False
    """Do not sign requests, even if there are credentials."""
    requester_pays: bool = False
    """Send ``x-amz-request-payer: requester`` with every request."""
    virtual_hosting: bool | None = None
    """Whether the bucket is part of the host name; None: on Amazon S3 only."""
    conditional: bool = True
    """Whether the store honours ``If-Match`` and ``If-None-Match`` of a put."""
    timeout: float = 60.0
    """Seconds to wait for the next byte."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment.

        Raises
        ------
        StorageError
            If a variable has an invalid value.
        """
        env = os.environ.get
        endpoint = env("AWS_ENDPOINT_URL_S3") or env("AWS_ENDPOINT_URL")
        if not endpoint and (host := env("AWS_S3_ENDPOINT")):
            plain = env("AWS_HTTPS", "YES").upper() in _NO
            endpoint = host if "://" in host else f"{'http' if plain else 'https'}://{host}"
        hosting = env("AWS_VIRTUAL_HOSTING")
        try:
            timeout = float(env("TESSERA_S3_TIMEOUT", "60"))
        except ValueError:
            raise StorageError(
                f"TESSERA_S3_TIMEOUT: expected seconds, found '{env('TESSERA_S3_TIMEOUT')}'"
            ) from None
        return cls(
            endpoint=endpoint or None,
            region=env("AWS_REGION") or env("AWS_DEFAULT_REGION"),
            profile=env("AWS_PROFILE"),
            anonymous=env("AWS_NO_SIGN_REQUEST", "").upper() in _YES,
            requester_pays=env("AWS_REQUEST_PAYER", "").lower() == "requester",
            virtual_hosting=None if hosting is None else hosting.upper() in _YES,
            conditional=env("TESSERA_S3_CONDITIONAL", "YES").upper() not in _NO,
            timeout=timeout,
        )


_lock = threading.Lock()


def client(settings: S3Settings | None = None) -> S3Client:
    """Return this process's client; clients are thread-safe, creating them is not.

    Raises
    ------
    StorageError
        If the settings name a profile that does not exist, or an invalid endpoint.
    """
    with _lock:
        return made_client(os.getpid(), settings or S3Settings.from_environment())


@cache
def _made_session(_pid: int, settings: S3Settings) -> boto3.session.Session:
    # 0.2 s to import: only when an S3 URL is used
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.session.Session(profile_name=settings.profile, region_name=settings.region)
    except BotoCoreError as error:
        raise StorageError(f"S3 settings: {error}") from error


def credentials(settings: S3Settings) -> Credentials | None:
    """Return the credentials that requests are signed with; None if there are none."""
    with _lock:
        return _made_session(os.getpid(), settings).get_credentials()


def forget() -> None:
    """Discard clients and credentials; the next use reads the environment and files again."""
    made_client.cache_clear()
    _made_session.cache_clear()


@cache
def made_client(_pid: int, settings: S3Settings) -> S3Client:
    """Create a client, once per process and settings."""
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    session = _made_session(_pid, settings)
    try:
        core = session._session
        elsewhere = settings.endpoint or core.get_scoped_config().get("endpoint_url")
        hosting = settings.virtual_hosting if settings.virtual_hosting is not None else not elsewhere
        mode = core.get_config_variable("retry_mode")
        made = session.client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=session.region_name or "us-east-1",
            config=Config(
                signature_version=UNSIGNED
                if settings.anonymous or session.get_credentials() is None
                else "s3v4",
                user_agent_extra=USER_AGENT,
                retries={
                    "mode": "standard" if mode == "legacy" else mode,
                    "total_max_attempts": core.get_config_variable("max_attempts") or retry.ATTEMPTS,
                },
                connect_timeout=min(15.0, settings.timeout),
                read_timeout=settings.timeout,
                max_pool_connections=32,
                # stores other than Amazon's seldom have a host name per bucket
                s3={"addressing_style": "virtual" if hosting else "path"},
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"S3 settings: {error}") from error
    if settings.requester_pays:
        # the stubs do not know handlers that return a response
        made.meta.events.register("provide-client-params.s3", _pay)  # type: ignore[arg-type]
    return made


def _pay(params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
    """Add ``RequestPayer`` to every operation that supports it."""
    shape = model.input_shape
    if shape is not None and "RequestPayer" in shape.members:
        return {"RequestPayer": "requester", **params}
    return params


def error_code(error: BaseException) -> str:
    """Return an error's S3 code, such as ``NoSuchKey``; for a HEAD the status. Empty for other errors."""
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_missing(error: BaseException) -> bool:
    """Return whether an error means that the object does not exist."""
    return error_code(error) in ("404", "NoSuchKey", "NotFound")


def is_refused_condition(error: BaseException) -> bool:
    """Return whether an error means that the precondition of a request failed."""
    return error_code(error) in ("412", "PreconditionFailed", "409", "ConditionalRequestConflict")


_MEANINGS = {
    "403": "access denied: check the credentials and the bucket's policy",
    "AccessDenied": "access denied: check the credentials and the bucket's policy",
    "404": "no such object or bucket",
    "NoSuchKey": "no such object",
    "NoSuchBucket": "no such bucket",
    "SlowDown": "the store asks for fewer requests",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "NotImplemented": "the store does not support this request; see TESSERA_S3_CONDITIONAL and"
    " AWS_REQUEST_CHECKSUM_CALCULATION in docs/s3.md",
}


def fail(address: str | Path, error: Exception) -> NoReturn:
    """Convert boto3's error to a StorageError: the URL, the store's error and the number of attempts."""
    if isinstance(error, StorageError):
        raise error
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    if not response:
        raise StorageError(f"{address}: {' '.join(str(error).split()) or type(error).__name__}") from error
    meta = response.get("ResponseMetadata", {})
    code, status = error_code(error), meta.get("HTTPStatusCode", "")
    reason = _MEANINGS.get(code) or response["Error"].get("Message") or ""
    tries = meta.get("RetryAttempts", 0) + 1
    said = f"HTTP {status}" if str(status) == code else f"HTTP {status} {code}"
    after = f" (after {tries} attempts)" if tries > 1 else ""
    raise StorageError(f"{address}: {said}: {reason}{after}") from error


def https_address(address: str) -> str:
    """Return the http(s) URL of an object; anybody can read it if the bucket is public.

    >>> https_address("s3://my-bucket/tiles/a.tif")
    'https://my-bucket.s3.amazonaws.com/tiles/a.tif'
    """
    bucket, key = bucket_key(address)
    if (published := published_address(address)) is not None:
        return published
    base = bucket_url(bucket)
    return f"{base}/{quote(key, safe='/~{}')}".rstrip("/")


def bucket_url(bucket: str) -> str:
    """Return the URL that a bucket's keys are appended to, after a slash."""
    found = _nameless()
    endpoint = found.meta.endpoint_url.rstrip("/")
    parts = urlsplit(endpoint)
    host = parts.netloc
    if host.endswith(".amazonaws.com") and not _region():
        # without a region, the host name that works for all of them
        host = "s3.amazonaws.com"
    # a name with a dot does not match the certificate of *.s3.amazonaws.com
    if _is_path_style(found) or "." in bucket:
        return f"{parts.scheme}://{host}/{bucket}"
    return f"{parts.scheme}://{bucket}.{host}"


def platform(address: str) -> tuple[str, str]:
    """Return the endpoint of an S3 URL's store, in the form of the STAC storage extension, and its region.

    Parts that differ between buckets are ``{bucket}`` and ``{region}``; the region may be empty.
    """
    bucket, _ = bucket_key(address)
    if bucket == "tessera":
        return "https://data.source.coop", ""
    found = _nameless()
    url = found.meta.endpoint_url.rstrip("/")
    host = urlsplit(url).netloc
    if host.endswith(".amazonaws.com"):
        region, dot, _ = bucket.partition(".")
        named = dot and published_address(address) is not None
        return "https://{bucket}.s3.{region}.amazonaws.com", region if named else found.meta.region_name
    return (url if _is_path_style(found) else url.replace(host, f"{{bucket}}.{host}")), found.meta.region_name


def _nameless() -> S3Client:
    """Return a client that knows the endpoint, without looking for credentials."""
    return client(replace(S3Settings.from_environment(), anonymous=True))


def _region() -> str | None:
    """Return the region that the environment or the files specify."""
    settings = S3Settings.from_environment()
    with _lock:
        return _made_session(os.getpid(), settings).region_name


def _is_path_style(found: S3Client) -> bool:
    config: Any = found.meta.config  # its stubs do not know the settings
    return (config.s3 or {}).get("addressing_style") == "path"


def is_signing(found: S3Client) -> bool:
    """Whether a client signs its requests."""
    config: Any = found.meta.config
    return isinstance(config.signature_version, str)


def gdal_settings() -> dict[str, str]:
    """Return the settings with which GDAL's ``/vsis3/`` reads from the same store, as the same user.

    Keys are left to GDAL, which reads the same environment and files.
    """
    settings, found = S3Settings.from_environment(), client()
    url = urlsplit(found.meta.endpoint_url)
    said = {
        "AWS_REGION": found.meta.region_name,
        "AWS_VIRTUAL_HOSTING": "FALSE" if _is_path_style(found) else "TRUE",
    }
    if not url.netloc.endswith(".amazonaws.com"):
        said |= {"AWS_S3_ENDPOINT": url.netloc, "AWS_HTTPS": "YES" if url.scheme == "https" else "NO"}
    if not is_signing(found):
        said["AWS_NO_SIGN_REQUEST"] = "YES"
    if settings.requester_pays:
        said["AWS_REQUEST_PAYER"] = "requester"
    return said
