"""Readers that the operator lists: with a password, or with a token.

One per line, ``name:hash:collections``::

    anna:scrypt$16384$8$5$c2FsdA$aGFzaA:tessera-v1.1-cam
    pipeline:sha256$9f86d081...:lab-*,tessera-v1.1-cam

Passwords are people's, so their hash is slow (scrypt). Tokens are 256 random bits that nobody can guess, so
theirs need not be. ``python -m api.readers.listed anna --collections 'lab-*'`` makes a line.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from api.readers.reader import Reader, patterns
from catalog_builder.errors import CatalogError

_N, _R, _P = 1 << 14, 8, 5
"""Cost of scrypt: 16 MB and about 0.2 s, as OWASP recommends."""
_MEMORY = 64 << 20
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")


@dataclass(frozen=True, slots=True)
class Password:
    """The scrypt hash of a password."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str) -> Self:
        """Hash a password."""
        salt = secrets.token_bytes(16)
        return cls(_N, _R, _P, salt, _scrypt(password, salt, _N, _R, _P))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :meth:`text` wrote.

        Raises
        ------
        ValueError
            If it is none, or one that takes more memory than a server should spend.
        """
        kind, n, r, p, salt, digest = text.split("$")
        found = cls(int(n), int(r), int(p), _unpadded(salt), _unpadded(digest))
        if kind != "scrypt" or not found.digest or 128 * found.n * found.r > _MEMORY // 2:
            raise ValueError(text)
        found.verify("")  # says if the numbers are none of scrypt's
        return found

    @property
    def text(self) -> str:
        """As it stands in a line."""
        salt, digest = (base64.b64encode(x).rstrip(b"=").decode() for x in (self.salt, self.digest))
        return f"scrypt${self.n}${self.r}${self.p}${salt}${digest}"

    def verify(self, password: str) -> bool:
        """Return whether it is this password; takes 0.2 s, so call it from a thread."""
        return hmac.compare_digest(_scrypt(password, self.salt, self.n, self.r, self.p), self.digest)


class Listed:
    """The listed readers.

    Parameters
    ----------
    lines
        Their lines; empty ones and those that begin with ``#`` are skipped.

    Raises
    ------
    CatalogError
        Naming the line that cannot be read. The line itself is not repeated: it may hold a password.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._passwords: dict[str, tuple[Password, Reader]] = {}
        self._tokens: dict[bytes, Reader] = {}
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.lstrip().startswith("#"):
                self._add(number, line.strip())
        # For names that are not listed: the answer must take as long.
        self._nobody = Password.of(secrets.token_hex())

    def __bool__(self) -> bool:
        return bool(self._passwords or self._tokens)

    @property
    def schemes(self) -> Mapping[str, bool]:
        """Which schemes of HTTP authentication have readers."""
        return {"basic": bool(self._passwords), "bearer": bool(self._tokens)}

    def _add(self, number: int, line: str) -> None:
        name, _, rest = line.partition(":")
        hashed, _, allowed = rest.partition(":")
        if not _NAME.fullmatch(name) or not patterns(allowed):
            raise CatalogError(f"readers, line {number}: expected name:hash:collections")
        reader = Reader(name, patterns(allowed))
        if re.fullmatch(r"sha256\$[0-9a-f]{64}", hashed):
            self._tokens[bytes.fromhex(hashed[7:])] = reader
            return
        try:
            self._passwords[name] = Password.parse(hashed), reader
        except ValueError:
            raise CatalogError(
                f"readers, line {number}: the hash of '{name}' is none; expected scrypt$n$r$p$salt$hash or"
                " sha256$hash, as python -m api.readers.listed writes them"
            ) from None

    def of_password(self, name: str, password: str) -> Reader | None:
        """Return the reader of a name and password, None if they are wrong; call it from a thread."""
        found = self._passwords.get(name)
        right = (found[0] if found is not None else self._nobody).verify(password)
        return found[1] if found is not None and right else None

    def of_token(self, token: str) -> Reader | None:
        """Return the reader of a token, None if there is none."""
        digest = hashlib.sha256(token.encode()).digest()
        matching = [reader for known, reader in self._tokens.items() if hmac.compare_digest(known, digest)]
        return matching[0] if matching else None


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MEMORY, dklen=32)


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m api.readers.listed", description="Print the line of a reader."
    )
    parser.add_argument("name")
    parser.add_argument(
        "--collections", required=True, help="Private collections to read: ids or patterns, comma-separated."
    )
    parser.add_argument("--token", action="store_true", help="Make a token; without it, ask for a password.")
    given = parser.parse_args(arguments)
    if given.token:
        token = secrets.token_urlsafe(32)
        hashed = f"sha256${hashlib.sha256(token.encode()).hexdigest()}"
    else:
        hashed = Password.of(getpass.getpass("Password: ")).text
    line = f"{given.name}:{hashed}:{given.collections}"
    try:
        Listed([line])
    except CatalogError as error:
        parser.error(str(error))
    if given.token:
        print(f"# token, shown only now: {token}")
    print(line)


if __name__ == "__main__":
    _main()
