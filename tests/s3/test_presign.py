"""Signed addresses: botocore's own are the same, and a store that checks them answers."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from api.request.hrefs import readdress, sign
from catalog_builder.errors import StorageError
from catalog_builder.storage.s3.client import client, forget
from catalog_builder.storage.s3.presign import Period, Presigner, period
from tests.support.s3_store import Store

KEYS = ["a.tif", "cogs/v1/2024/grid_-0.15_52.05/grid_-0.15_52.05_2024_1a2b_scales.tif", "ein Name+ü~(1)/x%20"]


def _parts(url: str) -> tuple[str, dict[str, list[str]]]:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}", parse_qs(parts.query)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"AWS_SESSION_TOKEN": "to/ken+=="},
        {"AWS_VIRTUAL_HOSTING": "YES", "AWS_ENDPOINT_URL": "https://s3.example.test:9000"},
        {"AWS_ENDPOINT_URL": "", "AWS_S3_ENDPOINT": "", "AWS_VIRTUAL_HOSTING": "TRUE"},
    ],
    ids=lambda s: " ".join(s) or "plain",
)
def test_the_same_as_botocores(
    store: Store, monkeypatch: pytest.MonkeyPatch, key: str, settings: dict[str, str]
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    forget()
    theirs = client().generate_presigned_url(
        "get_object", Params={"Bucket": "tiles", "Key": key}, ExpiresIn=7200
    )
    (stamp,) = parse_qs(urlsplit(theirs).query)["X-Amz-Date"]
    at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = Presigner(Period(int(at.timestamp()), 7200)).sign(f"s3://tiles/{key}")
    forget()
    (place, query), (their_place, their_query) = _parts(ours), _parts(theirs)
    assert place == their_place
    assert query == their_query


@pytest.mark.parametrize("payer", ["", "requester"])
def test_a_strict_store_answers_get_and_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch, payer: str
) -> None:
    # botocore signs a header for this, which a reader would have to send; a parameter needs nothing
    monkeypatch.setenv("AWS_REQUEST_PAYER", payer)
    for key in KEYS:
        store.client.put_object(Bucket=store.bucket, Key=key, Body=key.encode())
    signer = Presigner(period(600))
    for key in KEYS:
        url = signer.sign(f"{store.root}/{key}")
        assert ("x-amz-request-payer=requester" in url) == bool(payer)
        assert httpx.get(url).content == key.encode()
        assert httpx.get(url, headers={"Range": "bytes=0-2"}).content == key.encode()[:3]
        assert httpx.head(url).status_code == 403  # signed for GET: as real stores have it
        assert httpx.get(url.replace("X-Amz-Expires=600", "X-Amz-Expires=6000")).status_code == 403
        assert httpx.get(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 403
    old = Presigner(Period(period(600).start - 1200, 600)).sign(f"{store.root}/{KEYS[0]}")
    assert httpx.get(old).status_code == 403


def test_a_period_is_shared_and_never_nearly_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for second in range(1_772_366_400, 1_772_370_400, 61):
        monkeypatch.setattr("time.time", lambda second=second: float(second))
        found = period(3600)
        assert found.start % 1800 == 0
        assert 1800 < found.left <= 3600


def test_without_credentials(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    with pytest.raises(StorageError, match="no credentials to presign"):
        Presigner(period(600))


def test_items_of_a_database_are_given_other_addresses(store: Store) -> None:
    item = (
        '{"assets":{"a":{"href":"s3://tiles/x/a.tif","alternate":{"lab":{"href":"s3://lab/x/a.tif",'
        '"alternate:name":"lab"}}},"v":{"href":"s3://tiles/x/a_f32.vrt"},"p":{"href":"s3://tessera/x.npy"}}}'
    )
    other = '"lab":{"href":"s3://lab/x/a.tif"'
    assert readdress([item], "s3") == [item]
    (https,) = readdress([item], "https")
    assert f'"a":{{"href":"{store.url}/tiles/x/a.tif"' in https
    assert '"p":{"href":"https://data.source.coop/tessera/x.npy"' in https
    when = period(600)
    (signed,) = sign(readdress([item], "presigned"), when)
    assert f'"a":{{"href":"{Presigner(when).sign("s3://tiles/x/a.tif")}"' in signed
    assert f'"v":{{"href":"{store.url}/tiles/x/a_f32.vrt"' in signed
    assert signed.count("X-Amz-Signature") == 1
    assert other in https
    assert other in signed
