"""Lists of readers, and tokens of an OpenID Connect provider."""

from __future__ import annotations

import base64
import hmac
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.responses import Response

from api.app import create_app
from api.readers import listed
from api.readers.listed import Listed, Password
from api.settings import Settings
from catalog_builder.errors import CatalogError
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import Server, serve

AUDIENCE = "https://stac.example.org"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("readers")
    build_from(home / "c", write_manifest(home / "v1", 2024, patch(0, 52, 2, 1)))
    return home / "c"


def sees(server: Server, authorization: str | None) -> int:
    """Return the status, or how many collections are seen."""
    headers = {} if authorization is None else {"authorization": authorization}
    answer = httpx.get(f"{server.url}/collections", headers=headers)
    return len(answer.json()["collections"]) if answer.status_code == 200 else answer.status_code


@pytest.mark.parametrize(
    "line",
    ["anna", "anna:x:*", "anna:secret-password:*", "an na:sha256$00:*", f"anna:sha256${'0' * 63}:*",
     f"anna:sha256${'0' * 64}:", "anna:scrypt$16384$8$5$eA$:*", "anna:scrypt$3$8$5$eA$eA:*",
     "anna:scrypt$1073741824$8$5$eA$eA:*", "anna:scrypt$x$8$5$eA$eA:*", ":sha256$00:*"],
)  # fmt: skip
def test_a_line_that_is_none_is_named_and_not_repeated(line: str) -> None:
    with pytest.raises(CatalogError, match="readers, line 3") as caught:
        Listed(["# a comment", "", line])
    assert "secret-password" not in str(caught.value)


def test_a_password_is_only_itself() -> None:
    hashed = Password.of("pass:wörd")
    again = Password.parse(hashed.text)
    assert again.verify("pass:wörd")
    assert not again.verify("pass:word")
    assert Password.of("pass:wörd").text != hashed.text  # its salt


def test_the_line_that_the_program_prints_works(capsys: pytest.CaptureFixture[str]) -> None:
    listed._main(["anna", "--collections", "lab-*,tessera-v1", "--token"])
    shown, line = capsys.readouterr().out.splitlines()
    reader = Listed([line]).of_token(shown.rpartition(" ")[2])
    assert reader is not None
    assert (reader.name, reader.may_see) == ("anna", ("lab-*", "tessera-v1"))


@pytest.mark.service
def test_a_file_is_read_again_when_it_changes(catalog: Path, tmp_path: Path) -> None:
    file = tmp_path / "readers"
    line = f"anna:{Password.of('old').text}:*"
    file.write_text(line)
    settings = Settings(private="tessera-*", readers_file=file)
    old, new = (httpx.BasicAuth("anna", p)._auth_header for p in ("old", "new"))
    with serve(create_app(catalog, settings)) as server:
        assert (sees(server, None), sees(server, old), sees(server, new)) == (0, 1, 401)
        file.write_text("damaged")
        os.utime(file, (1, 1))
        time.sleep(1.1)
        assert (sees(server, old), sees(server, new)) == (1, 401)  # as it was
        file.write_text(f"anna:{Password.of('new').text}:*\n")
        time.sleep(1.1)
        assert (sees(server, old), sees(server, new)) == (401, 1)
    with pytest.raises(CatalogError, match="readers_file"):
        create_app(catalog, Settings(readers_file=tmp_path / "none"))


class Provider:
    """An OpenID Connect provider with two keys."""

    def __init__(self) -> None:
        self.url = ""
        self.fetched = 0
        self.keys = {
            "rsa": rsa.generate_private_key(65537, 2048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].endswith("openid-configuration"):
            said: Any = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        else:
            self.fetched += 1
            algorithms = {"rsa": jwt.algorithms.RSAAlgorithm, "ec": jwt.algorithms.ECAlgorithm}
            said = {
                "keys": [
                    {**algorithms[name].to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig"}
                    for name, key in self.keys.items()
                ]
            }
        await Response(orjson.dumps(said), media_type="application/json")(scope, receive, send)

    def token(self, key: str = "rsa", algorithm: str = "RS256", kid: str | None = None, **claims: Any) -> str:
        said = {"iss": self.url, "aud": AUDIENCE, "sub": "anna", "exp": time.time() + 600,
                "tessera_collections": ["tessera-*"], **claims}  # fmt: skip
        said = {k: v for k, v in said.items() if v is not None}
        return jwt.encode(said, self.keys[key], algorithm, headers={"kid": kid or key})


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    provider = Provider()
    with serve(provider) as server:
        provider.url = server.url
        yield provider


@pytest.fixture(scope="module")
def server(catalog: Path, provider: Provider) -> Iterator[Server]:
    settings = Settings(private="tessera-*", oidc_issuer=provider.url, oidc_audience=AUDIENCE)
    with serve(create_app(catalog, settings)) as running:
        yield running


@pytest.mark.service
def test_tokens_of_the_provider(provider: Provider, server: Server) -> None:
    now = time.time()
    for token, expected in (
        (provider.token(), 1),
        (provider.token("ec", "ES256"), 1),
        (provider.token(tessera_collections="openid tessera-v1"), 1),
        (provider.token(tessera_collections="lab-*"), 0),  # somebody who may see nothing private
        (provider.token(tessera_collections=None), 0),
        (provider.token(tessera_collections={"a": 1}), 0),
        (provider.token(aud="https://other.example"), 401),
        (provider.token(aud=None), 401),
        (provider.token(iss="https://other.example"), 401),
        (provider.token(exp=now - 100), 401),
        (provider.token(exp=None), 401),
        (provider.token(nbf=now + 100), 401),
        (provider.token(sub=None), 401),
        (provider.token(kid="ec"), 401),
        (provider.token(kid="unknown"), 401),
        (provider.token()[:-6] + "AAAAAA", 401),
        ("a.b.c", 401),
    ):
        assert sees(server, f"Bearer {token}") == expected


@pytest.mark.service
def test_a_token_signed_with_the_public_key_or_not_at_all(provider: Provider, server: Server) -> None:
    claims = {"iss": provider.url, "aud": AUDIENCE, "sub": "x", "exp": time.time() + 600}
    public = provider.keys["rsa"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    for algorithm, sign in (
        ("none", lambda _: b""),
        ("HS256", lambda text: hmac.digest(public, text.encode(), "sha256")),
    ):
        body = ".".join(part(orjson.dumps(x)) for x in ({"alg": algorithm, "kid": "rsa"}, claims))
        assert sees(server, f"Bearer {body}.{part(sign(body))}") == 401


@pytest.mark.service
def test_unknown_keys_do_not_make_the_server_ask_again_and_again(provider: Provider, server: Server) -> None:
    sees(server, f"Bearer {provider.token()}")
    before = provider.fetched
    for i in range(20):
        assert sees(server, f"Bearer {provider.token(kid=f'k{i}')}") == 401
    assert provider.fetched <= before + 1


@pytest.mark.service
def test_a_provider_that_is_away_is_503(catalog: Path, provider: Provider) -> None:
    settings = Settings(private="*", oidc_issuer="http://127.0.0.1:9", oidc_audience=AUDIENCE)
    with serve(create_app(catalog, settings)) as server:
        answer = httpx.get(f"{server.url}/", headers={"authorization": f"Bearer {provider.token()}"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_settings_that_would_let_anybody_in() -> None:
    with pytest.raises(ValueError, match="oidc_audience"):
        Settings(oidc_issuer="https://login.example.org")
    assert "x" * 8 not in repr(Settings(readers=f"anna:{'x' * 8}:*"))
