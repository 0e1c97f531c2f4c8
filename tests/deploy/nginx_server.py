"""nginx with the files of deploy/nginx, laid out as their first lines say, on free ports."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.processes import DEPLOY
from tests.support.needs import program
from tests.support.ports import free_port
from tests.support.waiting import until

CONFIG = DEPLOY / "nginx"
SNIPPETS = ("locations.conf", "cors.conf", "proxy.conf", "raw-lane.conf", "password.conf", "private.conf")
"""Files that the sites include."""


@dataclass(frozen=True, slots=True)
class Site:
    """A running nginx."""

    port: int
    """Of the site itself: 443 or 8080 in the file."""
    redirecting: int
    """Of the site that redirects to TLS: 80 in the file."""
    log: Path

    @property
    def plain(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls(self) -> str:
        return f"https://127.0.0.1:{self.port}"


def lay_out(
    folder: Path,
    catalog: Path,
    api_port: int,
    site: str,
    changes: Mapping[str, str] | None = None,
    sed: str | None = None,
) -> tuple[list[str], Site]:
    """Write a site's files; return what runs nginx on them.

    Parameters
    ----------
    folder
        Where its files go; ``cert.pem`` and ``key.pem`` there are the certificate.
    catalog, api_port
        What it serves, and where the API is.
    site
        ``site.conf`` or ``plain.conf``.
    changes
        Texts to replace in all files, beside addresses and paths.
    sed
        A script for ``locations.conf``.
    """
    command = program("nginx", "nginx-light")
    port, redirecting = free_port(), free_port()
    log = folder / "access.json"
    words = {
        "127.0.0.1:8000": f"127.0.0.1:{api_port}",
        "/srv/tessera/catalog": str(catalog),
        "/etc/letsencrypt/live/stac.example.org/fullchain.pem": str(folder / "cert.pem"),
        "/etc/letsencrypt/live/stac.example.org/privkey.pem": str(folder / "key.pem"),
        "/var/log/nginx/tessera-stac.json": str(log),
        "/dev/stdout": str(log),
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "listen 80;": f"listen 127.0.0.1:{redirecting};",
        **(changes or {}),
    }

    def changed(name: str) -> str:
        text = re.sub(r"\n *listen \[::\][^\n]*", "", (CONFIG / name).read_text())
        for old, new in words.items():
            text = text.replace(old, new)
        return text

    (folder / "tessera-stac").mkdir(exist_ok=True)
    for name in SNIPPETS:
        (folder / "tessera-stac" / name).write_text(changed(name))
    if sed is not None:
        subprocess.run(["sed", "-i", "-E", sed, folder / "tessera-stac" / "locations.conf"], check=True)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{k}_temp_path {folder}/{k};" for k in kinds)
    http = "\n".join(changed(name) for name in ("http.conf", "upstream.conf", site))
    (folder / "nginx.conf").write_text(
        f"{'user root;' if os.getuid() == 0 else ''} daemon off; pid {folder}/pid; worker_processes 2;"
        f" events {{ worker_connections 4096; }} http {{ {temporary}\n{http} }}"
    )
    arguments = [command, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error")]
    tested = subprocess.run([*arguments, "-t"], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr, tested.stderr
    return arguments, Site(port, redirecting, log)


@contextmanager
def nginx(laid_out: tuple[list[str], Site]) -> Iterator[Site]:
    """Run what :func:`lay_out` wrote."""
    arguments, running = laid_out
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(running.port, process)
        yield running
    finally:
        process.terminate()
        process.wait(20)


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    def listens() -> bool:
        assert process.poll() is None, "nginx ended"
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    until(listens, "nginx does not listen")


def certificate(folder: Path) -> None:
    """Make a certificate for the loopback address, signed by itself."""
    openssl = program("openssl", "openssl")
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,DNS:stac.example.org,IP:127.0.0.1",
            "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
