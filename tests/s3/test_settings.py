"""Which store, as whom: what the environment says reaches every request, and GDAL."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from catalog_builder import storage
from catalog_builder.errors import ChecksumError, ConflictError, StorageError
from catalog_builder.storage.s3 import put as s3_put
from catalog_builder.storage.s3.client import S3Settings, client, forget
from tests.support.s3_store import Store, times

BODY = bytes(range(256)) * 4096


def _use_everything(store: Store, folder: Path) -> None:
    """Make each kind of request once: put, in parts too, head, get, list, copy and remove."""
    local = folder / "a.bin"
    local.write_bytes(BODY)
    storage.put_file(local, f"{store.root}/x/a.bin", content_type="image/tiff", cache_control="max-age=1")
    s3_put.copy(
        f"{store.root}/x/a.bin", f"{store.root}/x/b.bin", sha256="", content_type="a/b", cache_control="c"
    )
    assert storage.size(f"{store.root}/x/a.bin") == len(BODY)
    assert storage.read_bytes(f"{store.root}/x/b.bin") == BODY
    assert storage.s3.objects.read_range(f"{store.root}/x/a.bin", 5, 9) == BODY[5:9]
    assert {e.path for e in storage.list_files(f"{store.root}/x")} == {"a.bin", "b.bin"}
    storage.s3.objects.remove([f"{store.root}/x/a.bin", f"{store.root}/x/b.bin"])
    assert not store.stored("x/")


def _in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    monkeypatch.setattr(s3_put, "PART_FROM", 300_000)
    monkeypatch.setattr(s3_put, "PART", 200_000)
    monkeypatch.setattr(s3_put, "MOST_PARTS", 1000)


def test_a_requester_who_pays_says_so_every_time(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    _use_everything(store, tmp_path)
    _in_parts(monkeypatch)
    _use_everything(store, tmp_path)
    kinds = {a.method for a in store.log}
    assert kinds >= {"GET", "HEAD", "PUT", "POST"}
    silent = [a for a in store.log if a.headers.get("x-amz-request-payer") != "requester"]
    assert not silent, silent
    assert storage.gdal_settings()["AWS_REQUEST_PAYER"] == "requester"


def test_a_profile_of_the_files(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.delenv("AWS_VIRTUAL_HOSTING")
    config, keys = tmp_path / "config", tmp_path / "credentials"
    config.write_text(f"[profile lab]\nregion = eu-north-1\nendpoint_url = {store.url}\n")
    keys.write_text("[lab]\naws_access_key_id = LABKEY\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    forget()
    _use_everything(store, tmp_path)
    assert all("Credential=LABKEY/" in a.headers["authorization"] for a in store.log)
    assert all("/eu-north-1/s3/" in a.headers["authorization"] for a in store.log)
    said = storage.gdal_settings()
    assert said["AWS_REGION"] == "eu-north-1"
    assert said["AWS_S3_ENDPOINT"] == store.url.removeprefix("http://")
    assert (said["AWS_HTTPS"], said["AWS_VIRTUAL_HOSTING"]) == ("NO", "FALSE")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    forget()
    with pytest.raises(StorageError, match="nobody"):
        client()
    forget()


def test_anonymous_signs_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    store.client.put_object(Bucket=store.bucket, Key="public", Body=b"1", ACL="public-read")
    assert storage.read_bytes(f"{store.root}/public") == b"1"
    assert not any("authorization" in a.headers for a in store.log)
    assert storage.gdal_settings()["AWS_NO_SIGN_REQUEST"] == "YES"


def test_a_setting_without_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_S3_TIMEOUT", "soon")
    with pytest.raises(StorageError, match="TESSERA_S3_TIMEOUT: expected seconds, found 'soon'"):
        S3Settings.from_environment()


@pytest.mark.parametrize("classic", [False, True])
@pytest.mark.parametrize("parts", [False, True])
def test_what_is_put_carries_a_checksum_that_the_store_compares(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classic: bool, parts: bool
) -> None:
    if classic:
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        forget()
    if parts:
        _in_parts(monkeypatch)
    local = tmp_path / "a.bin"
    local.write_bytes(BODY)
    storage.put_file(local, f"{store.root}/a.bin", immutable=True)
    sent = [a for a in store.log if a.method == "PUT"]
    assert len(sent) == (6 if parts else 1)
    header = "content-md5" if classic else "x-amz-checksum-sha256"
    assert all(header in a.headers for a in sent)
    assert store.client.get_object(Bucket=store.bucket, Key="a.bin")["Body"].read() == BODY
    # the same again is no conflict, other bytes are
    storage.put_file(local, f"{store.root}/a.bin", immutable=True)
    local.write_bytes(BODY[::-1])
    with pytest.raises(ConflictError, match="already exists, with different bytes"):
        storage.put_file(local, f"{store.root}/a.bin", immutable=True)
    assert store.client.get_object(Bucket=store.bucket, Key="a.bin")["Body"].read() == BODY
    forget()


def test_what_is_read_is_compared_with_the_stores_checksum(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "a.bin"
    local.write_bytes(BODY)
    storage.put_file(local, f"{store.root}/a.bin")
    meta = store.client.head_object(Bucket=store.bucket, Key="a.bin")["Metadata"]
    damaged = BODY[:-1] + b"x"
    store.client.put_object(Bucket=store.bucket, Key="a.bin", Body=damaged, Metadata=meta)
    with pytest.raises(
        ChecksumError, match=f"{store.root}/a.bin: SHA-256 of the bytes read is .*, the store"
    ):
        storage.fetch_to(f"{store.root}/a.bin", tmp_path / "b.bin")
    assert not (tmp_path / "b.bin").exists()
    assert store.count("GET") == 2, "once more, in case it was damaged on the way"


def test_parts_are_removed_if_not_all_arrive(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in_parts(monkeypatch)
    local = tmp_path / "a.bin"
    local.write_bytes(BODY)
    store.fault = lambda a: "503" if "partNumber=4" in a.path else None
    with pytest.raises(StorageError, match=r"HTTP 503 SlowDown: .* \(after 4 attempts\)"):
        storage.put_file(local, f"{store.root}/a.bin")
    assert not store.stored()
    assert not store.client.list_multipart_uploads(Bucket=store.bucket).get("Uploads")
    # and passing failures of parts pass
    for what in ("503", "reset", "lost"):
        store.fault = times(2, what, lambda a: "partNumber=" in a.path)
        storage.put_file(local, f"{store.root}/{what}.bin")
        assert store.client.get_object(Bucket=store.bucket, Key=f"{what}.bin")["Body"].read() == BODY


def test_a_lost_answer_is_no_conflict(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "a.bin"
    local.write_bytes(BODY)
    store.fault = times(1, "lost", lambda a: a.method == "PUT")
    storage.put_file(local, f"{store.root}/a.bin", immutable=True)
    assert store.count("PUT") == 2, "put, its answer lost, and put again: refused, because it is there"
    assert store.stored() == {"a.bin"}


def test_a_broken_download_is_resumed(store: Store, tmp_path: Path) -> None:
    body = BODY * 4
    store.client.put_object(Bucket=store.bucket, Key="a.bin", Body=body)
    store.fault = times(2, "cut", lambda a: a.method == "GET")
    storage.fetch_to(f"{store.root}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == body
    ranges = [a.headers.get("range") for a in store.log if a.method == "GET"]
    assert ranges[0] is None
    assert ranges[1] is not None
    store.fault = lambda a: "cut" if a.method == "GET" else None
    with pytest.raises(StorageError, match=f"{store.root}/a.bin: "):
        storage.fetch_to(f"{store.root}/a.bin", tmp_path / "b.bin")
    assert not (tmp_path / "b.bin").exists()


def test_a_store_that_stalls(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_S3_TIMEOUT", "0.3")
    store.client.put_object(Bucket=store.bucket, Key="a.bin", Body=BODY)
    store.fault = times(1, "stall", lambda a: a.method == "GET")
    assert storage.read_bytes(f"{store.root}/a.bin") == BODY
    store.fault = lambda _: "stall"
    with pytest.raises(StorageError, match=f"{store.root}/a.bin: Read timeout on endpoint"):
        storage.read_bytes(f"{store.root}/a.bin")


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="s3://x/a: Could not connect to the endpoint URL"):
        storage.read_bytes("s3://x/a")


def test_many_threads_share_one_probe(store: Store) -> None:
    threads = [threading.Thread(target=s3_put.check_conditions, args=(f"{store.root}/p",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = len(store.log)
    s3_put.check_conditions(f"{store.root}/p")
    assert len(store.log) == before
    assert store.stored() == {f"p/{s3_put.PROBE}"}


def test_hidden_names_are_not_listed(store: Store) -> None:
    for key in ("a/.files/1/x", "a/.b", "a/c/", "a/d"):
        store.client.put_object(Bucket=store.bucket, Key=key, Body=b"")
    assert [e.path for e in storage.list_files(f"{store.root}/a")] == ["d"]
