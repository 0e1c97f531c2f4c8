"""How often a request is tried, and how long to wait between attempts."""

from __future__ import annotations

import time

ATTEMPTS = 4
"""How often a request is tried; also how often a broken download is resumed without progress."""
BACKOFF = 0.5
"""Seconds before the second attempt; doubles after each."""


def pause(attempt: int) -> None:
    """Wait after an attempt that failed, counted from 0."""
    time.sleep(BACKOFF * 2**attempt)
