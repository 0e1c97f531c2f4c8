"""Walking through pages as a client does."""

from __future__ import annotations

from typing import Any

import httpx


def ok(response: httpx.Response) -> dict[str, Any]:
    """Return the body of an answer that must be good."""
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def follow(http: httpx.Client, link: dict[str, Any]) -> dict[str, Any]:
    """Follow a next or prev link, GET or POST."""
    if link.get("method") == "POST":
        return ok(http.post(link["href"], json=link["body"]))
    return ok(http.get(link["href"]))


def link_of(page: dict[str, Any], rel: str) -> dict[str, Any] | None:
    found = [link for link in page["links"] if link["rel"] == rel]
    assert len(found) <= 1, f"{len(found)} links {rel}"
    return found[0] if found else None


def ids_of(page: dict[str, Any]) -> list[str]:
    return [feature["id"] for feature in page["features"]]


def walk(http: httpx.Client, page: dict[str, Any], most: int = 10_000) -> list[list[str]]:
    """Return the ids of every page from this one to the last; checks what each page promises."""
    pages = [ids_of(page)]
    assert link_of(page, "prev") is None, "the first page has a prev link"
    for _ in range(most):
        assert page["numberReturned"] == len(page["features"])
        following = link_of(page, "next")
        if following is None:
            return pages
        assert page["features"], "an empty page says that there is more"
        page = follow(http, following)
        assert page["features"], "a next link leads to an empty page"
        assert link_of(page, "prev") is not None
        pages.append(ids_of(page))
    raise AssertionError("paging does not end")


def walk_back(http: httpx.Client, page: dict[str, Any]) -> list[list[str]]:
    """Return the ids of every page from this one back to the first, in forward order."""
    pages = [ids_of(page)]
    while (before := link_of(page, "prev")) is not None:
        page = follow(http, before)
        assert page["features"], "a prev link leads to an empty page"
        assert link_of(page, "next") is not None
        pages.insert(0, ids_of(page))
    return pages
