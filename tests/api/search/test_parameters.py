"""Every wrong parameter is 400 with a reason that names it, the same for GET and POST."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from api.settings import Settings
from tests.support.paging import ids_of, link_of, ok

POINT = {"type": "Point", "coordinates": [0.12, 52.2]}
RING = [[0, 52], [1, 52], [1, 53], [0, 52]]


def reason(response: httpx.Response) -> str:
    assert response.status_code == 400, (response.status_code, response.text[:300])
    body = response.json()
    assert set(body) == {"code", "description"}
    assert body["code"] == "BadRequest"
    return str(body["description"])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("bbox", [1], "found 1"),
        ("bbox", [1, 2, 3, 4, 5], "found 5"),
        ("bbox", [0, 0, 0, 1, 1, 1, 1], "found 7"),
        ("bbox", [0, 53, 1, 52], "north"),
        ("bbox", [0, -91, 1, 52], "-90..90"),
        ("bbox", [-181, 0, 1, 52], "-180..180"),
        ("bbox", [0, 0, 9, 1, 1, 2], "height"),
        ("limit", 0, "at least 1"),
        ("limit", -1, "at least 1"),
        ("datetime", "2024", "RFC 3339"),
        ("datetime", "2024-01-01", "RFC 3339"),
        ("datetime", "2024-13-01T00:00:00Z", "month"),
        ("datetime", "2023-02-29T00:00:00Z", "not a time"),
        ("datetime", "2024-01-01T24:00:00Z", "too large"),
        ("datetime", "2024-01-01T00:00:00", "RFC 3339"),
        ("datetime", "2024-01-01T00:00:00+0100", "RFC 3339"),
        ("datetime", "2024-01-01T00:00:00,5Z", "RFC 3339"),
        ("datetime", "2024-01-01T00:00:00.Z", "RFC 3339"),
        ("datetime", "2024-01-01T00:00:00Z/2023-01-01T00:00:00Z", "before it starts"),
        ("datetime", "/", "both ends"),
        ("datetime", "../..", "both ends"),
        ("datetime", "/..", "both ends"),
        ("datetime", "a/b/c", "slashes"),
        ("datetime", "", "RFC 3339"),
        ("token", "zzzz", "token"),
        ("token", "next:abc", "token"),
        ("token", "", "token"),
        ("intersects", {"type": "Feature", "geometry": POINT}, "Feature"),
        ("intersects", {"type": "Circle", "coordinates": [1, 2]}, "Circle"),
        ("intersects", {"type": "Point"}, "coordinates"),
        ("intersects", {"type": "Point", "coordinates": [1]}, "positions"),
        ("intersects", {"type": "Point", "coordinates": ["a", "b"]}, "positions"),
        ("intersects", {"type": "Point", "coordinates": [0, 91]}, "off the globe"),
        ("intersects", {"type": "LineString", "coordinates": [[0, 0]]}, "at least 2"),
        ("intersects", {"type": "Polygon", "coordinates": [RING[:3]]}, "ring"),
        ("intersects", {"type": "Polygon", "coordinates": RING}, "ring"),
        ("intersects", {"type": "MultiPolygon", "coordinates": [RING]}, "ring"),
        ("intersects", {"type": "GeometryCollection", "geometries": POINT}, "geometries"),
        ("intersects", [1, 2], "object"),
    ],
)
def test_both_methods_refuse_with_the_same_reason(
    http: httpx.Client, name: str, value: Any, said: str
) -> None:
    by_post = reason(http.post("/search", json={name: value}))
    text = (
        value if isinstance(value, str) else json.dumps(value).strip("[]") if name != "intersects" else None
    )
    by_get = reason(http.get("/search", params={name: json.dumps(value) if text is None else text}))
    assert by_post.startswith(name)
    assert said in by_post
    assert by_get == by_post


@pytest.mark.parametrize(
    ("name", "text"),
    [("bbox", "a,b,c,d"), ("bbox", ""), ("bbox", "[1,2,3,4]"), ("bbox", "1,2,3,nan"), ("bbox", "1,2,3,inf"),
     ("bbox", "1_0,2,30,4"), ("bbox", "1,2,3,４"), ("bbox", "1,2,3,1e999"),
     ("limit", "ten"), ("limit", ""), ("limit", "1.5"), ("limit", "१"), ("limit", "9" * 30),
     ("intersects", "POINT(1 2)"), ("intersects", "")],
)  # fmt: skip
def test_text_that_is_not_what_it_should_be(http: httpx.Client, name: str, text: str) -> None:
    assert reason(http.get("/search", params={name: text})).startswith(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [("bbox", "1,2,3,4"), ("bbox", ["1", "2", "3", "4"]), ("bbox", [True, 0, 1, 1]), ("bbox", {}),
     ("limit", "5"), ("limit", True), ("limit", 1.5), ("datetime", 2019), ("ids", "a,b"), ("ids", [1]),
     ("collections", "tessera-v1"), ("collections", {"a": 1}), ("token", 5), ("intersects", "x")],
)  # fmt: skip
def test_json_of_the_wrong_type(http: httpx.Client, name: str, value: Any) -> None:
    assert reason(http.post("/search", json={name: value})).startswith(name)


@pytest.mark.parametrize("body", [b"{", b"[]", b"5", b'"a"', b"\xff\xfe", b'{"bbox":[NaN,0,1,1]}'])
def test_a_body_that_is_not_an_object(http: httpx.Client, body: bytes) -> None:
    assert "body" in reason(http.post("/search", content=body))


def test_an_empty_body_asks_for_everything(http: httpx.Client) -> None:
    assert ids_of(ok(http.post("/search", content=b""))) == ids_of(ok(http.get("/search")))
    assert ids_of(ok(http.post("/search", json={}))) == ids_of(ok(http.get("/search")))


def test_unknown_parameters_are_refused_and_the_known_named(http: httpx.Client) -> None:
    for response in (
        http.get("/search", params={"bbos": "1,2,3,4"}),
        http.post("/search", json={"bbos": [1, 2, 3, 4]}),
        http.get("/collections/tessera-v1/items", params={"bbos": "1"}),
    ):
        said = reason(response)
        assert "'bbos'" in said
        assert "bbox" in said
    for path in ("/", "/conformance", "/collections/tessera-v1"):
        assert "'x'" in reason(http.get(path, params={"x": 1}))
    assert ok(http.get("/collections/tessera-v1/items?collections=a"))["numberMatched"] == 0
    assert "'limit'" in reason(http.post("/search?limit=1", json={}))


def test_a_parameter_twice_is_refused(http: httpx.Client) -> None:
    assert "more than once" in reason(http.get("/search?limit=1&limit=2"))


def test_bbox_and_intersects_together_are_refused(http: httpx.Client) -> None:
    said = reason(http.post("/search", json={"bbox": [0, 0, 1, 1], "intersects": POINT}))
    assert "only one" in said
    assert said == reason(http.get("/search", params={"bbox": "0,0,1,1", "intersects": json.dumps(POINT)}))


def test_nulls_and_empty_lists_restrict_nothing(http: httpx.Client) -> None:
    everything = ids_of(ok(http.get("/search")))
    body = {"bbox": None, "ids": [], "collections": [], "datetime": None}
    assert ids_of(ok(http.post("/search", json=body))) == everything


def test_a_large_limit_is_cut_to_the_maximum(http: httpx.Client) -> None:
    """Of items, or of bytes, whichever comes first."""
    response = http.get("/search", params={"limit": 1_000_000})
    page, most = ok(response), Settings().page_bytes
    if page["numberReturned"] < min(Settings().max_limit, page["numberMatched"]):
        assert 0.98 * most < len(response.content) < 1.02 * most
    assert len(page["features"]) == page["numberReturned"] <= Settings().max_limit
    assert ok(http.post("/search", json={"limit": 2.0}))["numberReturned"] == 2


def test_a_token_of_another_search_is_refused(http: httpx.Client) -> None:
    page = ok(http.get("/search", params={"bbox": "0,52,1,53", "limit": 3}))
    following = link_of(page, "next")
    assert following is not None
    token = httpx.URL(following["href"]).params["token"]
    said = reason(http.get("/search", params={"bbox": "0,52,1,54", "limit": 3, "token": token}))
    assert "does not belong" in said
    assert said == reason(http.post("/search", json={"bbox": [0, 52, 1, 54], "token": token}))
    changed = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    assert "token" in reason(http.get("/search", params={"bbox": "0,52,1,53", "limit": 3, "token": changed}))
    # The size of the pages may change on the way, and GET may be continued by POST.
    other = ok(http.post("/search", json={"bbox": [0, 52, 1, 53], "limit": 5, "token": token}))
    whole = ids_of(ok(http.get("/search", params={"bbox": "0,52,1,53", "limit": 8})))
    assert ids_of(page) + ids_of(other) == whole


def test_unknown_collections_hold_nothing(http: httpx.Client) -> None:
    assert ok(http.get("/search?collections=nope"))["numberMatched"] == 0
    both = ok(http.get("/search?collections=nope,tessera-v1&limit=1"))
    assert both["numberMatched"] == ok(http.get("/search?limit=1"))["numberMatched"]


def test_missing_things_are_404_with_a_reason(http: httpx.Client) -> None:
    for path in (
        "/collections/nope", "/collections/nope/items", "/collections/nope/items/x", "/nope",
        "/collections/tessera-v1/items/x", "/collections/tessera-v1/items/grid_0.15_52.05_1999",
        "/collections/tessera-v1/items/grid_0.15_52.05_2024%20", "/collections/%00/items",
        "/collections/tessera-v1/items/grid_000.15_52.05_2024",
    ):  # fmt: skip
        response = http.get(path)
        assert response.status_code == 404, path
        assert set(response.json()) == {"code", "description"}


def test_methods_that_are_not_there_are_405(http: httpx.Client) -> None:
    for method, path in (("DELETE", "/search"), ("PUT", "/"), ("POST", "/collections/tessera-v1/items")):
        response = http.request(method, path)
        assert response.status_code == 405
        assert set(response.json()) == {"code", "description"}
        assert "GET" in response.headers["allow"]


@pytest.mark.parametrize("digits", ["1_0", "１０", "١٠", "1e1", "+10", " 10", "0x10"])
def test_only_plain_digits_are_integers(http: httpx.Client, digits: str) -> None:
    """Wherever a client says one: Python's int() takes an underscore, and digits of any script."""
    item = "/collections/tessera-v1/items/grid_0.15_52.05_2024"
    for path, given in (
        ("/search", {"limit": digits}),
        ("/collections", {"limit": digits}),
        ("/collections/tessera-v1/items", {"limit": digits}),
        (f"{item}/preview.png", {"max_size": digits}),
        (f"{item}/preview.png", {"bands": f"{digits}x,1,2"}),
        (f"{item}/tiles/WebMercatorQuad/{digits}/0/0.png", {}),
        (f"{item}/tiles/WebMercatorQuad/9/{digits}/0.png", {}),
        ("/collections/tessera-v1/tiles/WebMercatorQuad/9/0/" + digits + ".png", {}),
        ("/search", {"view": "bands", "bands": f"{digits}x"}),
        ("/search", {"query": json.dumps({"tessera:year": {"eq": f"{digits}x"}})}),
    ):
        assert http.get(path, params=given).status_code == 400, (path, given)


@pytest.mark.parametrize("year", ["２０２４", "2_024", "٢٠٢٤"])
def test_only_plain_digits_are_years(http: httpx.Client, year: str) -> None:
    assert reason(http.get("/search", params={"datetime": f"{year}-01-01T00:00:00Z"})).startswith("datetime")
    assert ok(http.get("/search", params={"ids": f"grid_0.15_52.05_{year}"}))["features"] == []
    assert ok(http.get("/search", params={"q": year}))["features"] == []
    assert ok(http.get("/search", params={"q": "５２.０５"}))["features"] == []
    assert http.get(f"/collections/tessera-v1/browse/{year}").status_code == 404


def test_an_outline_around_the_world_and_around_is_refused(http: httpx.Client) -> None:
    """Few vertices, but half the globe's cells on its outline: it would hold a worker for long."""
    zigzag = [[-170 if i % 2 else 170, i / 10 - 60] for i in range(1200)]
    said = reason(http.post("/search", json={"intersects": {"type": "LineString", "coordinates": zigzag}}))
    assert "outline" in said
    part = {"type": "LineString", "coordinates": zigzag[:100]}
    one = {"op": "s_intersects", "args": [{"property": "geometry"}, part]}
    assert "outline" in reason(http.post("/search", json={"filter": {"op": "or", "args": [one, one]}}))
    ok(http.post("/search", json={"filter": one, "limit": 1}))
