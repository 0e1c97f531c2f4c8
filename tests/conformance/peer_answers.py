"""Asking a server as clients do, and what is right: found by testing every item."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import shapely
from shapely.geometry import shape

Item = Mapping[str, Any]
Key = tuple[str, str]
"""Collection and id."""


@dataclass(frozen=True)
class Answer:
    """What a server said, or should have said."""

    text: str
    keys: frozenset[Key] | None = None
    """Items, where the text only counts them."""


@dataclass(frozen=True)
class Case:
    """An input and what is right."""

    topic: str
    shown: str
    """The input, as the table shows it."""
    ask: Callable[[httpx.Client], Answer]
    right: Callable[[Sequence[Item]], Answer]
    why: str = ""
    """The thread or the rule."""


def key(item: Item) -> Key:
    return item["collection"], item["id"]


def items_answer(keys: Sequence[Key]) -> Answer:
    distinct = frozenset(keys)
    repeated = f", {len(keys) - len(distinct)} of them repeated" if len(keys) != len(distinct) else ""
    return Answer(f"{len(keys):,} item{'s' * (len(keys) != 1)}{repeated}", distinct)


def follow(http: httpx.Client, link: Mapping[str, Any], body: Mapping[str, Any] | None) -> httpx.Response:
    """Follow a paging link as pystac-client does."""
    if link.get("method", "GET") == "POST":
        sent = {**(body or {}), **link["body"]} if link.get("merge") else link["body"]
        return http.post(link["href"], json=sent)
    return http.get(link["href"])


def walk(http: httpx.Client, method: str, given: Mapping[str, Any], path: str = "/search") -> Answer:
    """Return every item of a search, page by page."""
    response = http.get(path, params=dict(given)) if method == "GET" else http.post(path, json=given)
    keys: list[Key] = []
    for _ in range(2000):
        if response.status_code != 200:
            return Answer(f"{response.status_code}" + (f" after {len(keys)} items" if keys else ""))
        page = response.json()
        keys += [key(f) for f in page["features"]]
        following = [x for x in page["links"] if x["rel"] == "next"]
        if not following:
            return items_answer(keys)
        response = follow(http, following[0], given)
    return Answer("never ends")


def get(**given: Any) -> Callable[[httpx.Client], Answer]:
    return lambda http: walk(http, "GET", {"limit": 1000, **given})


def post(**given: Any) -> Callable[[httpx.Client], Answer]:
    return lambda http: walk(http, "POST", {"limit": 1000, **given})


def status(method: str, path: str, **options: Any) -> Callable[[httpx.Client], Answer]:
    return lambda http: Answer(str(http.request(method, path, **options).status_code))


def says(text: str) -> Callable[[Sequence[Item]], Answer]:
    return lambda _: Answer(text)


def where(test: Callable[[Item], bool]) -> Callable[[Sequence[Item]], Answer]:
    return lambda items: items_answer([key(i) for i in items if test(i)])


def touches(*geometries: Any) -> Callable[[Item], bool]:
    """Whether an item's cell shares a point with any of these."""
    for geometry in geometries:
        shapely.prepare(geometry)
    return lambda item: any(shapely.intersects(g, shape(item["geometry"])) for g in geometries)


def overlaps(start: str | None, end: str | None) -> Callable[[Item], bool]:
    """Whether an item's interval shares an instant with this one."""

    def instant(text: str) -> dt.datetime:
        return dt.datetime.fromisoformat(text)

    def test(item: Item) -> bool:
        of = item["properties"]
        return (start is None or instant(of["end_datetime"]) >= instant(start)) and (
            end is None or instant(of["start_datetime"]) <= instant(end)
        )

    return test
