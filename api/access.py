"""How items give the places of their files in S3, and how this server answers for those files."""

from __future__ import annotations

from typing import Literal, get_args

Hrefs = Literal["https", "s3", "presigned"]
HREFS: tuple[Hrefs, ...] = get_args(Hrefs)
Access = Literal["https", "presigned", "proxy"]
"""How this server answers for a file in S3: by redirect, to its own or a signed address, or itself."""
