"""Objects in S3: size, reading, listing, removing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from catalog_builder.errors import ChecksumError, StorageError
from catalog_builder.storage import retry
from catalog_builder.storage.address import CHUNK, Entry, bucket_key
from catalog_builder.storage.s3.client import client, error_code, fail, is_missing
from catalog_builder.storage.stream import Opened

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef, ObjectTypeDef

SHA256 = "sha256"
"""Key of the user metadata with a file's SHA-256: for a multipart upload the store keeps only a hash
of hashes."""


class Head(NamedTuple):
    """Metadata of an object."""

    size: int
    tag: str
    """ETag, with its quotes."""
    sha256: str
    """Lower-case hex, as stated by its writer; empty if it was not."""


class Tagged(NamedTuple):
    """A small object and its version."""

    data: bytes
    tag: str


def head(address: str) -> Head | None:
    """Return the metadata of an object; None if it does not exist."""
    bucket, key = bucket_key(address)
    try:
        found = client().head_object(Bucket=bucket, Key=key)
    except Exception as error:
        if is_missing(error):
            return None
        fail(address, error)
    return Head(found["ContentLength"], found["ETag"], found.get("Metadata", {}).get(SHA256, ""))


def open_at(address: str, start: int, tag: str) -> Opened:
    """Request an object from a byte offset on."""
    bucket, key = bucket_key(address)
    resume = {"Range": f"bytes={start}-", "IfMatch": tag} if start else {}
    try:
        found = client().get_object(Bucket=bucket, Key=key, **cast("dict[str, Any]", resume))
    except Exception as error:
        fail(address, error)
    body = found["Body"]

    def chunks() -> Iterator[bytes]:
        from botocore.exceptions import FlexibleChecksumError

        try:
            yield from body.iter_chunks(CHUNK)
        except FlexibleChecksumError as error:
            raise ChecksumError(f"{address}: the bytes do not match the store's checksum") from error
        finally:
            body.close()

    size = None if start else found["ContentLength"]
    return Opened(chunks(), found["ETag"], size, found.get("Metadata", {}).get(SHA256, ""))


def read_range(address: str, start: int, stop: int, tag: str = "") -> bytes:
    """Return bytes [start, stop) of an object; with an ETag, only of that version."""
    version = {"IfMatch": tag} if tag else {}
    return _read(address, {"Range": f"bytes={start}-{stop - 1}", **version}).data


def read_last(address: str, n: int) -> Tagged | None:
    """Return the last ``n`` bytes of an object; None if it is missing."""
    try:
        return _read(address, {"Range": f"bytes=-{n}"})
    except StorageError as error:
        if is_missing(error.__cause__ or error):
            return None
        raise


def read_tagged(address: str, known: str = "") -> Tagged | None:
    """Return a small object; None if it is missing, or if it still has the given version."""
    try:
        return _read(address, {"IfNoneMatch": known} if known else {})
    except StorageError as error:
        cause = error.__cause__ or error
        said = error_code(cause) in ("304", "NotModified") if known else is_missing(cause)
        if said:
            return None
        raise


def _read(address: str, how: dict[str, Any]) -> Tagged:
    """Return the complete body of a response, retrying if it breaks off."""
    bucket, key = bucket_key(address)
    for attempt in range(retry.ATTEMPTS):
        try:
            found = client().get_object(Bucket=bucket, Key=key, **how)
            return Tagged(found["Body"].read(), found["ETag"])
        except Exception as error:
            # boto3 has already retried error statuses
            if error_code(error) or attempt == retry.ATTEMPTS - 1:
                fail(address, error)
        retry.pause(attempt)
    raise AssertionError("unreachable")


def list_tags(address: str) -> dict[str, str]:
    """Return the ETags, without quotes, of all objects below a prefix, hidden ones too, by path below it."""
    return {path: item["ETag"].strip('"') for path, item in _listed(address)}


def list_files(address: str) -> Iterator[Entry]:
    """List every visible object below a prefix."""
    for path, item in _listed(address):
        # S3 has no folders; some tools leave empty objects named like one
        hidden = any(part.startswith(".") for part in path.split("/"))
        if path and not path.endswith("/") and not hidden:
            yield Entry(path, item["Size"], int(item["LastModified"].timestamp()))


def _listed(address: str) -> Iterator[tuple[str, ObjectTypeDef]]:
    bucket, key = bucket_key(address)
    prefix = f"{key.rstrip('/')}/" if key else ""
    try:
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                yield item["Key"][len(prefix) :], item
    except Exception as error:
        fail(address, error)


def remove(addresses: list[str]) -> None:
    """Remove objects of one bucket; missing objects are not an error."""
    for at in range(0, len(addresses), 1000):
        part = addresses[at : at + 1000]
        bucket = bucket_key(part[0])[0]
        keys: list[ObjectIdentifierTypeDef] = [{"Key": bucket_key(a)[1]} for a in part]
        try:
            answer = client().delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        except Exception as error:
            fail(part[0], error)
        for failed in answer.get("Errors", ()):
            reason = failed.get("Message") or failed.get("Code")
            raise StorageError(f"s3://{bucket}/{failed.get('Key')}: cannot be removed: {reason}")
