"""Images of the Dockerfile as it stands, built and run without a container engine, by buildah and namespaces.

Base images cannot be fetched everywhere, so stand-ins are made: Debian 12 by debootstrap, with this machine's
node, Python and certificates copied in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.processes import ROOT
from tests.support.needs import lacks, program

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
LIBRARIES = ",".join(
    (
        "ca-certificates",
        "libssl3",
        "libffi8",
        "libsqlite3-0",
        "zlib1g",
        "libbz2-1.0",
        "liblzma5",
        "libreadline8",
        "libncursesw6",
        "libuuid1",
    )
)
"""What an interpreter that was built on this machine is linked with."""
NODE, PYTHON = "docker.io/library/node:22-bookworm-slim", "docker.io/library/python:3.12-slim-bookworm"


def _run(*command: object, **options: Any) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Images:
    """A store of images."""

    folder: Path

    def buildah(self, *arguments: object) -> str:
        store = (
            "--root",
            self.folder / "storage",
            "--runroot",
            self.folder / "run",
            "--storage-driver",
            "vfs",
        )
        return _run(program("buildah", "buildah"), *store, *arguments)

    def make_bases(self) -> None:
        """Make what stands in for the base images."""
        if os.geteuid():
            lacks("images are built by root")
        root = self.folder / "debian"
        debootstrap = program("debootstrap", "debootstrap")
        _run(debootstrap, "--variant=minbase", f"--include={LIBRARIES}", "bookworm", root)
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        for archive in (root / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        for name, add in ((NODE, _add_node), (PYTHON, _add_python)):
            container = self.buildah("from", "scratch")
            mounted = Path(self.buildah("mount", container))
            _run("cp", "-a", f"{root}/.", mounted)
            add(mounted)
            self.buildah("umount", container)
            variables = ("PIP_CERT", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
            env = [f"--env={variable}={CERTIFICATES}" for variable in variables]
            path = "--env=PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
            self.buildah("config", *env, path, container)
            self.buildah("commit", "--quiet", "--rm", container, name)
        shutil.rmtree(root)

    def build(self, target: str) -> Image:
        """Build a target of the Dockerfile, of the files that are in git."""
        source = self.folder / "source"
        if not source.exists():
            source.mkdir()
            names = _run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
            listed = [n for n in names.splitlines() if (ROOT / n).is_file()]
            subprocess.run(["cp", "--parents", "-t", source, *listed], cwd=ROOT, check=True)
        name = f"localhost/tessera-stac:{target}"
        self.buildah(
            "bud", "--isolation", "chroot", "--layers", "--pull-never", "--format", "docker",
            "--target", target, "--build-arg", f"COMMIT={'0' * 40}", "-f", source / "deploy" / "Dockerfile",
            "-t", name, source,
        )  # fmt: skip
        about = json.loads(self.buildah("inspect", "--type", "image", name))
        container = self.buildah("from", "--pull-never", name)
        return Image(target, Path(self.buildah("mount", container)), about["Docker"]["config"])


def _add_node(root: Path) -> None:
    node, npm = Path(program("node", "nodejs")), Path(program("npm", "npm")).resolve().parents[1]
    shutil.copy(node.resolve(), root / "usr/local/bin/node")
    modules = root / "usr/local/lib/node_modules"
    modules.mkdir(parents=True)
    shutil.copytree(npm, modules / "npm", symlinks=True)
    (root / "usr/local/bin/npm").symlink_to("../lib/node_modules/npm/bin/npm-cli.js")


def _add_python(root: Path) -> None:
    """Copy the interpreter of these tests, with pip and without what else it has installed."""
    prefix = Path(sys.base_prefix)
    library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
    packages = f"{library}/site-packages"
    left_out = ("__pycache__", "test", "*.a", f"./{packages}/*")
    pack = ["tar", "-c", *(f"--exclude={p}" for p in left_out), "."]
    with subprocess.Popen(pack, cwd=prefix, stdout=subprocess.PIPE) as packing:
        subprocess.run(["tar", "-x", "-C", root / "usr/local"], stdin=packing.stdout, check=True)
    for path in (prefix / packages).glob("pip*"):
        shutil.copytree(path, root / "usr/local" / packages / path.name)
    for path in (root / "usr/local/bin").glob("pip*"):
        _, _, rest = path.read_text().partition("\n")
        path.write_text(f"#!/usr/local/bin/python3\n{rest}")
    _run("chroot", root, "ldconfig")
    _run("chroot", root, "/usr/local/bin/python3", "-c", "import bz2, ctypes, lzma, sqlite3, ssl")


@dataclass(frozen=True, slots=True)
class Image:
    """An image as a folder, and what it says of itself."""

    target: str
    root: Path
    config: Mapping[str, Any]

    def megabytes_above(self, base: int) -> float:
        """Return how much larger it is than its base."""
        return (size_of(self.root) - base) / 1e6

    def command(
        self, words: Sequence[str] | None = None, *, mounts: Mapping[str, str] | None = None, **env: str
    ) -> list[str]:
        """Return what runs it: as its user, with a read-only file system and mounts, and no other variables.

        Parameters
        ----------
        words
            Arguments of its entry point; by default its own.
        mounts
            Folders of this machine by where they are in the container; ``:ro`` after that: for reading only.
        env
            Variables beside its own.
        """
        steps = [
            f"mount --bind {self.root} {self.root}",
            f"mount -t tmpfs -o mode=1777 tmpfs {self.root}/tmp",
            f"mount -t proc proc {self.root}/proc",
            f"mount --rbind /dev {self.root}/dev",
        ]
        for target, source in (mounts or {}).items():
            inside = f"{self.root}{target.removesuffix(':ro')}"
            steps += [f"mkdir -p {inside}", f"mount --bind {source} {inside}"]
            if target.endswith(":ro"):
                steps.append(f"mount -o remount,bind,ro {inside}")
        steps.append(f"mount -o remount,bind,ro {self.root}")
        variables = [*self.config["Env"], *(f"{k}={v}" for k, v in env.items()), "HOME=/tmp"]
        entry = [*self.config["Entrypoint"], *(self.config["Cmd"] if words is None else words)]
        script = " && ".join([*steps, 'exec chroot --userspec="$1" "$0" env -i "${@:2}"'])
        user = str(self.config["User"])
        return ["unshare", "--mount", "bash", "-c", script, str(self.root), user, *variables, *entry]


def size_of(folder: Path) -> int:
    """Return the bytes on disk below a folder."""
    return int(_run("du", "-s", "--block-size=1", folder).split()[0])


@contextmanager
def loopback(name: str) -> Iterator[list[str]]:
    """Lend what runs a command in a network that is loopback alone."""
    ip = program("ip", "iproute2")
    _run(ip, "netns", "add", name)
    try:
        _run(ip, "-n", name, "link", "set", "lo", "up")
        yield [ip, "netns", "exec", name]
    finally:
        _run(ip, "netns", "del", name)
