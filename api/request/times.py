"""RFC 3339 times and intervals, as in the ``datetime`` parameter of STAC and OGC API - Features.

Times are integers, nanoseconds since 1970 UTC: exact for any fraction a client sends, and offsets at
the ends of the calendar cannot overflow.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from functools import lru_cache

from catalog_builder.errors import QueryError

NS = 1_000_000_000
"""Nanoseconds in a second."""
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
DATETIME_PATTERN = r"^(\.\.)?/?\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d[^ ]*$"
"""Approximate pattern of a ``datetime``, for the OpenAPI document; :func:`parse_datetime` is exact."""
_EXPECTED = "expected an RFC 3339 time such as 2024-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed interval of time; an end that is None is open."""

    start: int | None
    end: int | None

    def overlaps(self, start: int, end: int) -> bool:
        """Return whether it shares an instant with another closed interval."""
        return (self.start is None or self.start <= end) and (self.end is None or start <= self.end)


def parse_instant(text: str, name: str = "datetime") -> int:
    """Return an RFC 3339 time as nanoseconds since 1970.

    Raises
    ------
    QueryError
        If it is not one.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise QueryError(f"{name}: '{text[:60]}' is not a time; {_EXPECTED}")
    year, month, day, hour, minute, second, fraction, sign, off_h, off_m = match.groups()
    seconds = int(hour) * 3600 + int(minute) * 60 + int(second)
    try:
        days = dt.date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    except ValueError as exc:
        raise QueryError(f"{name}: '{text}' is not a time ({exc}); {_EXPECTED}") from None
    # 60 is a leap second.
    if int(hour) > 23 or int(minute) > 59 or int(second) > 60 or (off_h and int(off_h) > 23):
        raise QueryError(f"{name}: '{text}' is not a time (hour, minute or second too large); {_EXPECTED}")
    if off_m and int(off_m) > 59:
        raise QueryError(f"{name}: '{text}' is not a time (offset minutes too large); {_EXPECTED}")
    offset = (int(off_h) * 3600 + int(off_m) * 60) * (-1 if sign == "-" else 1) if sign else 0
    return (days * 86400 + seconds - offset) * NS + int(((fraction or "") + "0" * 9)[:9])


def parse_datetime(text: str, name: str = "datetime") -> Interval:
    """Parse an instant, or an interval with ``..`` or an empty text for an open end.

    Raises
    ------
    QueryError
        If it is neither, if both ends are open, or if it ends before it starts.
    """
    parts = text.split("/")
    if len(parts) == 1:
        at = parse_instant(text, name)
        return Interval(at, at)
    if len(parts) != 2:
        raise QueryError(f"{name}: '{text[:80]}' has {len(parts) - 1} slashes; expected start/end")
    start, end = (None if p in ("", "..") else parse_instant(p, name) for p in parts)
    if start is None and end is None:
        raise QueryError(f"{name}: '{text}' is open at both ends; omit {name}, or give one end")
    if start is not None and end is not None and start > end:
        raise QueryError(f"{name}: '{text}' ends before it starts; expected start/end")
    return Interval(start, end)


@lru_cache(maxsize=64)
def year_span(year: int) -> tuple[int, int]:
    """Return the first and last instant of a tile-year: its start_datetime and end_datetime."""
    first = (dt.date(year, 1, 1).toordinal() - _EPOCH_DAY) * 86400 * NS
    last = (dt.date(year, 12, 31).toordinal() - _EPOCH_DAY) * 86400 * NS + 86399 * NS
    return first, last
