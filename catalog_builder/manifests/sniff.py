"""Detection of a file's format by its first bytes.

File names are not used, except for files that are too damaged to be recognised.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from catalog_builder.manifests.listing.saved import looks_like_entry
from catalog_builder.manifests.text import has_registry_name, is_master_line, is_registry_line

HEAD = 1 << 16
"""Number of bytes examined."""


class Form(Enum):
    """The kind of a file."""

    EMPTY = auto()
    GZIP = auto()
    BZIP2 = auto()
    XZ = auto()
    ZSTD = auto()
    ZIP = auto()
    TAR = auto()
    PARQUET = auto()
    REGISTRY = auto()
    MASTER = auto()
    LISTING = auto()
    UTF16 = auto()
    WEB_PAGE = auto()
    UNKNOWN = auto()


_MAGIC = {
    b"\x1f\x8b": Form.GZIP,
    b"BZh": Form.BZIP2,
    b"\xfd7zXZ\x00": Form.XZ,
    b"\x28\xb5\x2f\xfd": Form.ZSTD,
    b"PK\x03\x04": Form.ZIP,
    b"PK\x05\x06": Form.ZIP,  # an empty archive
    b"PAR1": Form.PARQUET,
    b"\xff\xfe": Form.UTF16,
    b"\xfe\xff": Form.UTF16,
}
_TAR_MAGIC = slice(257, 262)
_WEB_PAGE = re.compile(rb"\s*<(?:!doctype|html|\?xml|error)", re.IGNORECASE)


def sniff(head: bytes, name: str) -> Form:
    """Return the format of a file.

    Parameters
    ----------
    head
        Its first :data:`HEAD` bytes, fewer if it is shorter.
    name
        Its name, for a text in which no line is valid.
    """
    if not head:
        return Form.EMPTY
    for magic, form in _MAGIC.items():
        if head.startswith(magic):
            return form
    if head[_TAR_MAGIC] == b"ustar":
        return Form.TAR
    if _WEB_PAGE.match(head):
        return Form.WEB_PAGE
    return _sniff_text(head, name)


def _sniff_text(head: bytes, name: str) -> Form:
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if len(head) >= HEAD:
        lines = lines[:-1]
    seen = 0
    master = False
    for raw in lines:
        line = raw.decode("utf-8", "replace").strip()
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if is_registry_line(words):
            return Form.REGISTRY
        if looks_like_entry(line):
            return Form.LISTING
        master = master or is_master_line(words)
        seen += 1
        if seen == 200:
            break
    if master:
        return Form.MASTER
    if not head.strip():
        return Form.EMPTY
    return Form.REGISTRY if has_registry_name(name) else Form.UNKNOWN
