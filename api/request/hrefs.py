"""The form of hrefs of files in S3, by request: https, s3 or presigned.

Only hrefs of files in S3 change. ``https`` is a URL that any client can read: the bucket's own, or,
where the bucket is not public (``TESSERA_STAC_S3_ACCESS``), this server's ``/data``, which redirects to
a presigned URL or relays the bytes. ``s3`` is for clients with their own credentials.
``presigned`` URLs need none and are valid for at most ``TESSERA_STAC_PRESIGN_SECONDS``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from api.access import HREFS, Access, Hrefs
from catalog_builder import storage
from catalog_builder.errors import QueryError, StorageError
from catalog_builder.item.addresses import SIGNED, Addresses
from catalog_builder.storage.s3.presign import Period, Presigner

# Not of mirrors, nor of stores of arrays: who reads these lists their keys, which https cannot.
_STORED = re.compile(r'"href":"(s3://[^"]+)"(?!,"alternate:name"|,"type":"application/vnd[.+]zarr)')
_TO_SIGN = re.compile(rf'"href":"{SIGNED}([^"]+)"')


def parse_hrefs(value: object) -> Hrefs | None:
    """Return the requested form of hrefs.

    Raises
    ------
    QueryError
        If it is none of :data:`HREFS`.
    """
    if value is None:
        return None
    for known in HREFS:
        if value == known:
            return known
    raise QueryError(f"hrefs: expected one of {', '.join(HREFS)}, found {str(value)[:40]!r}")


def shown(addresses: Addresses, hrefs: Hrefs, home: str, access: Access) -> Addresses:
    """Return a collection's URLs in the requested form.

    Parameters
    ----------
    addresses
        The URLs in the catalogue.
    hrefs
        The requested form.
    home
        s3 URL of the catalogue; empty if it is a folder.
    access
        How this server serves files below ``home``.
    """

    def address(given: str, how: Hrefs) -> str:
        where = given
        if home and given.startswith("{root}/data/"):
            where = f"{home}/{given.removeprefix('{root}/data/')}"
        if not where.startswith("s3://") or (how == "s3" and where):
            return where
        if storage.published_address(where) is None:
            if how == "presigned":
                return SIGNED + where.removeprefix("s3://")
            if access != "https" and home and where.startswith(f"{home}/"):
                return f"{{root}}/data/{where.removeprefix(f'{home}/')}"
        return storage.https_address(where)

    source, landmasks, data = (
        address(a, hrefs) for a in (addresses.source, addresses.landmasks, addresses.data)
    )
    views = ""
    if data.startswith(SIGNED):
        # A VRT refers to its neighbours without a signature: this server serves them under these names.
        inside = home and data.startswith(f"{SIGNED}{home.removeprefix('s3://')}/")
        below = data.removeprefix(SIGNED).removeprefix(home.removeprefix("s3://"))
        views = f"{{root}}/data{below}" if inside else address(addresses.data, "https")
    return replace(addresses, source=source, landmasks=landmasks, data=data, views=views)


def readdress(texts: Sequence[str], hrefs: Hrefs) -> list[str]:
    """Return items, as JSON texts with hrefs as stored, with hrefs in the requested form.

    Mirrors of a file (``alternate``) are unchanged. VRTs are never presigned, because
    their neighbours would lack a signature: they get their https URL.
    """
    if hrefs == "s3":
        return list(texts)

    def href(match: re.Match[str]) -> str:
        address = match[1]
        signs = hrefs == "presigned" and not address.endswith(".vrt")
        if signs and storage.published_address(address) is None:
            return f'"href":"{SIGNED}{address.removeprefix("s3://")}"'
        return f'"href":"{storage.https_address(address)}"'

    return [_STORED.sub(href, text) for text in texts]


def sign(texts: Sequence[str], when: Period) -> list[str]:
    """Return items, as JSON texts, with the marked URLs presigned.

    Raises
    ------
    QueryError
        If this server has no credentials to sign with.
    """
    try:
        signer = _signer(when)
    except StorageError as error:
        raise QueryError(f"hrefs: this server cannot presign ({error})") from error
    return [_TO_SIGN.sub(lambda m: f'"href":"{signer.sign("s3://" + m[1])}"', text) for text in texts]


@lru_cache(maxsize=4)
def _signer(when: Period) -> Presigner:
    return Presigner(when)


def presigned(address: str, when: Period) -> str:
    """Return the presigned URL of one object; like :func:`sign`, but raises :class:`StorageError`."""
    return _signer(when).sign(address)
