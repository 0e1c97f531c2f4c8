"""Writing to S3: checksums that the store verifies, conditions, and large files in parts.

Every file is sent with its SHA-256 (of each part, if it is sent in parts), which the store compares
with what arrived. Where the store does not support these checksums, ``AWS_REQUEST_CHECKSUM_CALCULATION=
when_required`` sends ``Content-MD5`` instead, which all stores support.

A condition makes a put fail with :class:`~catalog_builder.errors.ConflictError` rather than overwrite
something it did not know of. A lost response is not a conflict: an object that contains our own bytes
was written by us.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_builder.errors import ConflictError, StorageError
from catalog_builder.storage.address import bucket_key, join
from catalog_builder.storage.s3.client import S3Settings, client, fail, is_refused_condition
from catalog_builder.storage.s3.objects import SHA256, head

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART_FROM = 100 << 20
"""Files of this many bytes or more are uploaded in parts."""
PART = 32 << 20
"""Bytes of a part."""
MOST_PARTS = 10_000
"""S3 accepts no more; for files beyond 320 GB the parts are larger."""
SENDERS = 4
"""Parts uploaded concurrently: this many are in memory."""
PROBE = ".tessera-probe"
"""Object that is used to test whether the store honours conditions; see :func:`check_conditions`."""
NEW = ""
"""As the version that a put replaces: the object must not exist."""


def put(
    local: Path,
    address: str,
    *,
    content_type: str,
    cache_control: str | None = None,
    replacing: str | None = None,
) -> str:
    """Upload a file; return its new ETag.

    Parameters
    ----------
    local, address
        Source and destination.
    content_type, cache_control
        What the store says of it to clients.
    replacing
        Replace only the version with this ETag, or, if it is :data:`NEW`, none. None: replace any.

    Raises
    ------
    ConflictError
        If the store has another version.
    StorageError
        If it cannot be written; the store is then unchanged.
    """
    sha256 = _sha256(local)
    settings = S3Settings.from_environment()
    if replacing is not None and (not settings.conditional or local.stat().st_size >= PART_FROM):
        # Before a long upload that would be refused; and instead of a condition that the store ignores.
        present = head(address)
        if present is not None and present.sha256 == sha256:
            return present.tag
        _require(address, present.tag if present else NEW, replacing)
    about: dict[str, Any] = {"Metadata": {SHA256: sha256}, "ContentType": content_type}
    about |= {"CacheControl": cache_control} if cache_control else {}
    condition: dict[str, Any] = {}
    if replacing is not None and settings.conditional:
        condition = {"IfMatch": replacing} if replacing else {"IfNoneMatch": "*"}
    try:
        if local.stat().st_size >= PART_FROM:
            return _put_parts(local, address, about, condition)
        return _put_whole(local, address, sha256, about, condition)
    except Exception as error:
        if not is_refused_condition(error):
            fail(address, error)
    present = head(address)
    if present is not None and present.sha256 == sha256:
        return present.tag
    raise ConflictError(f"{address}: {_taken(replacing)}")


def copy(source: str, target: str, *, sha256: str, content_type: str, cache_control: str) -> None:
    """Copy an object within a bucket, on the server side."""
    bucket, key = bucket_key(source)
    about = {
        "MetadataDirective": "REPLACE",
        "Metadata": {SHA256: sha256},
        "ContentType": content_type,
        "CacheControl": cache_control,
        # of the whole object, even if the source was uploaded in parts and has a hash of hashes
        **({} if _classic() else {"ChecksumAlgorithm": "SHA256"}),
    }
    try:
        client().copy(
            {"Bucket": bucket, "Key": key}, bucket_key(target)[0], bucket_key(target)[1], ExtraArgs=about
        )
    except Exception as error:
        fail(target, error)


def check_conditions(root: str) -> None:
    """Make sure that the store honours conditions: some accept them and overwrite anyway.

    Tested once per process and root, with an object that is kept: one request after the first time.

    Raises
    ------
    StorageError
        If it does not, and the settings do not allow it.
    """
    settings = S3Settings.from_environment()
    if settings.conditional and not _keeps_conditions(root, settings):
        raise StorageError(
            f"{root}: this store overwrites an object despite If-None-Match, so two writers at once could"
            " undo each other's work. With TESSERA_S3_CONDITIONAL=NO the object is looked for before each"
            " put instead; make sure then that only one process writes at a time"
        )


@cache
def _keeps_conditions(root: str, _settings: S3Settings) -> bool:
    bucket, key = bucket_key(join(root, PROBE))
    for _ in range(2):
        try:
            client().put_object(Bucket=bucket, Key=key, Body=b"", IfNoneMatch="*")
        except Exception as error:
            if is_refused_condition(error):
                return True
            fail(root, error)
    return False


def _require(address: str, present: str, replacing: str) -> None:
    if present != replacing:
        raise ConflictError(f"{address}: {_taken(replacing)}")


def _taken(replacing: str | None) -> str:
    if replacing == NEW:
        return "already exists, with different bytes; nothing was overwritten"
    return "was changed by another writer meanwhile; nothing was overwritten"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _classic() -> bool:
    """Return whether the store must be sent no newer checksum than MD5."""
    config: Any = client().meta.config
    return bool(config.request_checksum_calculation == "when_required")


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _put_whole(
    local: Path, address: str, sha256: str, about: dict[str, Any], condition: dict[str, Any]
) -> str:
    bucket, key = bucket_key(address)
    if _classic():
        with local.open("rb") as file:
            check = {"ContentMD5": _base64(hashlib.file_digest(file, "md5").digest())}
    else:
        check = {"ChecksumSHA256": _base64(bytes.fromhex(sha256))}
    with local.open("rb") as body:
        given = {**about, **check, **condition}
        return client().put_object(Bucket=bucket, Key=key, Body=body, **given)["ETag"]


def _put_parts(local: Path, address: str, about: dict[str, Any], condition: dict[str, Any]) -> str:
    """Upload a file in parts; the parts are removed if the upload does not complete."""
    bucket, key = bucket_key(address)
    classic = _classic()
    algorithm: dict[str, Any] = {} if classic else {"ChecksumAlgorithm": "SHA256"}
    upload = client().create_multipart_upload(Bucket=bucket, Key=key, **about, **algorithm)["UploadId"]
    of: dict[str, Any] = {"Bucket": bucket, "Key": key, "UploadId": upload}

    def send(number: int, data: bytes) -> CompletedPartTypeDef:
        if classic:
            check = _base64(hashlib.md5(data, usedforsecurity=False).digest())
            tag = client().upload_part(**of, PartNumber=number, Body=data, ContentMD5=check)["ETag"]
            return {"PartNumber": number, "ETag": tag}
        check = _base64(hashlib.sha256(data).digest())
        tag = client().upload_part(**of, PartNumber=number, Body=data, ChecksumSHA256=check)["ETag"]
        return {"PartNumber": number, "ETag": tag, "ChecksumSHA256": check}

    try:
        with ThreadPoolExecutor(SENDERS) as pool:
            parts: list[CompletedPartTypeDef] = []
            waiting = []
            for number, data in enumerate(_parts(local), 1):
                waiting.append(pool.submit(send, number, data))
                if len(waiting) == SENDERS:
                    parts.append(waiting.pop(0).result())
            parts += [future.result() for future in waiting]
        done = client().complete_multipart_upload(**of, MultipartUpload={"Parts": parts}, **condition)
    except BaseException:
        # incomplete parts are kept, and paid for, until they are removed
        with suppress(Exception):
            client().abort_multipart_upload(**of)
        raise
    return done["ETag"]


def _parts(local: Path) -> Iterator[bytes]:
    size = max(PART, -(-local.stat().st_size // MOST_PARTS))
    with local.open("rb") as file:
        while data := file.read(size):
            yield data
