"""An S3 store for tests: moto's server, behind a front that is strict, takes notes, and can misbehave.

moto checks neither signatures nor checksums. The front does both: the checksums of what is put, and the
signature of presigned addresses, by botocore's own signer, which is told nothing but what arrived.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import http.server
import logging
import os
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import ThreadedMotoServer

from catalog_builder.storage import retry
from catalog_builder.storage.s3 import put as s3_put
from catalog_builder.storage.s3.client import forget

KEY, SECRET = "TESTKEY", "test-secret"
REGION = "eu-west-2"
_SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>%s</Code><Message>Please reduce your request rate.</Message></Error>"
)
_CODES = {"503": "SlowDown", "500": "InternalError", "403": "AccessDenied"}


@dataclass(slots=True)
class Asked:
    """One request to the store."""

    method: str
    path: str
    """With its query."""
    headers: dict[str, str]
    """Names in small letters."""
    status: int = 0
    body: int = 0
    """Bytes of its body."""


Fault = Callable[[Asked], str | None]
"""What to do with a request: a status as ``503``, ``reset``, ``cut`` (the answer breaks off halfway),
``stall`` (no answer until the store is closed), ``lost`` (it is done, the answer is not sent), or None."""


@dataclass
class Store:
    """A running store with one empty bucket."""

    url: str
    bucket: str
    client: Any
    """A boto3 client that goes around the front."""
    log: list[Asked] = field(default_factory=list)
    fault: Fault = lambda _: None
    ignores_conditions: bool = False
    """As some stores do: accept ``If-None-Match`` and overwrite all the same."""
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def root(self) -> str:
        return f"s3://{self.bucket}"

    def stored(self, prefix: str = "") -> set[str]:
        """Return all keys below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return {item["Key"] for page in pages for item in page.get("Contents", ())}

    def count(self, method: str, part: str = "") -> int:
        return sum(asked.method == method and part in asked.path for asked in self.log)

    def empty(self) -> None:
        """Remove everything from the bucket, and all faults."""
        self.fault, self.ignores_conditions = lambda _: None, False
        for key in self.stored():
            self.client.delete_object(Bucket=self.bucket, Key=key)
        s3_put._keeps_conditions.cache_clear()
        self.log.clear()


def times(n: int, what: str, when: Callable[[Asked], bool]) -> Fault:
    """Misbehave the first n times that a request fits."""
    left = [n]

    def fault(asked: Asked) -> str | None:
        if left[0] and when(asked):
            left[0] -= 1
            return what
        return None

    return fault


def _handler(  # noqa: C901 - one class in it
    store: Store, moto: tuple[str, int]
) -> type[http.server.BaseHTTPRequestHandler]:
    class Front(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            headers = {k.lower(): v for k, v in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            asked = Asked(self.command, self.path, headers, body=len(body))
            store.log.append(asked)
            how = store.fault(asked)
            if how == "reset":
                # linger 0: the peer sees RST
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
            elif how == "stall":
                store.closing.wait(30)
                self.close_connection = True
            elif how in _CODES:
                self.send(asked, int(how), _CODES[how])
            elif refused := _refuse(store, self.command, self.path, headers, body):
                self.send(asked, 403 if "Signature" in refused else 400, refused)
            else:
                self.forward(asked, body, how)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_OPTIONS = answer  # noqa: N815

        def send(self, asked: Asked, status: int, code: str) -> None:
            asked.status = status
            text = _SLOW_DOWN % code.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def forward(self, asked: Asked, body: bytes, how: str | None) -> None:
            given = dict(self.headers.items())
            if store.ignores_conditions and self.command in ("PUT", "POST"):
                given = {k: v for k, v in given.items() if k.lower() not in ("if-match", "if-none-match")}
            behind = http.client.HTTPConnection(*moto, timeout=60)
            try:
                behind.request(self.command, self.path, body, given)
                answer = behind.getresponse()
                data = answer.read()
            finally:
                behind.close()
            asked.status = answer.status
            if how == "lost":
                self.close_connection = True
                self.connection.close()
                return
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if how == "cut" else data)
            if how == "cut":
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Front


def _refuse(store: Store, method: str, path: str, headers: dict[str, str], body: bytes) -> str:
    """Return the code of what is wrong with a request; empty if nothing is."""
    md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    if headers.get("content-md5", md5) != md5:
        return "BadDigest"
    given = headers.get("x-amz-checksum-sha256")
    if given and base64.b64encode(hashlib.sha256(body).digest()).decode() != given and method == "PUT":
        return "BadDigest"
    query = dict(parse_qsl(urlsplit(path).query))
    if "X-Amz-Signature" in query and not _is_signed(store, method, path, query):
        return "SignatureDoesNotMatch"
    return ""


def _is_signed(store: Store, method: str, path: str, query: dict[str, str]) -> bool:
    """Whether a presigned address is signed for this method, by our key, and has not expired."""
    signed_at = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if time.time() > signed_at.timestamp() + int(query["X-Amz-Expires"]):
        return False
    parts = urlsplit(path)
    rest = "&".join(p for p in parts.query.split("&") if not p.startswith("X-Amz-"))
    host = urlsplit(store.url).netloc
    request = AWSRequest(method, f"http://{host}{parts.path}{'?' + rest if rest else ''}")
    signer = S3SigV4QueryAuth(Credentials(KEY, SECRET), "s3", REGION, int(query["X-Amz-Expires"]))
    request.context["timestamp"] = query["X-Amz-Date"]
    # the signer's own steps, at the time that the address states
    signer._modify_request_before_signing(request)
    canonical = signer.canonical_request(request)
    expected = signer.signature(signer.string_to_sign(request, canonical), request)
    return bool(query["X-Amz-Signature"] == expected)


@contextmanager
def s3_store() -> Iterator[Store]:
    """Run a store, and let this process's environment name it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    behind = server.get_host_and_port()
    admin = boto3.client(
        "s3",
        endpoint_url=f"http://{behind[0]}:{behind[1]}",
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )
    bucket = f"tiles-{uuid.uuid4().hex[:8]}"  # moto's buckets are the process's
    admin.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    store = Store("", bucket, admin)
    front = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(store, behind))
    front.daemon_threads = True
    store.url = f"http://127.0.0.1:{front.server_port}"
    threading.Thread(target=front.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                patch.delenv(name)
        for name, value in environment(store).items():
            patch.setenv(name, value)
        patch.setattr(retry, "BACKOFF", 0.01)
        # boto3's own waiting between attempts, and its quota of attempts
        patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
        patch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda *_: True)
        forget()
        try:
            yield store
        finally:
            store.closing.set()
            front.shutdown()
            front.server_close()
            server.stop()
            forget()


def environment(store: Store) -> dict[str, str]:
    """Return what names the store to boto3, and through GDAL's names to ``/vsis3/``."""
    return {
        "AWS_ENDPOINT_URL": store.url,
        "AWS_S3_ENDPOINT": urlsplit(store.url).netloc,
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }
