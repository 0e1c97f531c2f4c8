"""How items link to their files in S3, and how this server serves those files."""

from __future__ import annotations

from typing import Literal, get_args

Hrefs = Literal["https", "s3", "presigned"]
HREFS: tuple[Hrefs, ...] = get_args(Hrefs)
Access = Literal["https", "presigned", "proxy"]
"""How this server serves a file in S3: by redirect to its public or a presigned URL, or itself."""
