"""The two renderers of a template must say the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_builder.item.template import (
    ArrowRenderer,
    Flag,
    Instant,
    JsonRenderer,
    Number,
    Numbers,
    Text,
    When,
)

TEMPLATE: dict[str, Any] = {
    "id": Text("a{name}b{n}%"),
    "constant": {"list": ["1", 'x"y\\z%s'], "words": [{"name": "b0"}, {"name": "b1"}], "yes": True},
    "time": Instant("{year}-01-01T00:00:00Z"),
    "numbers": [Number("x"), 7.0, Number("y")],
    "many": Numbers("list"),
    "flag": Flag(1),
    "nested": {
        "deep": When(2, {"v": Number("n"), "more": When(4, Text("{name}"))}),
        "always": Text("{name}"),
    },
    "links": [{"href": Text("http://h/{name}")}, {"href": "http://h/"}],
    "maybe": When(4, Number("x")),
}


def _expected(row: dict[str, Any], flags: int) -> dict[str, Any]:
    """Write the template out by hand."""
    nested: dict[str, Any] = {"always": row["name"]}
    if flags & 2:
        nested["deep"] = {"v": row["n"], **({"more": row["name"]} if flags & 4 else {})}
    return {
        "id": f"a{row['name']}b{row['n']}%",
        "constant": {"list": ["1", 'x"y\\z%s'], "words": [{"name": "b0"}, {"name": "b1"}], "yes": True},
        "time": f"{row['year']}-01-01T00:00:00Z",
        "numbers": [row["x"], 7.0, row["y"]],
        "many": row["list"],
        "flag": bool(flags & 1),
        "nested": nested,
        "links": [{"href": f"http://h/{row['name']}"}, {"href": "http://h/"}],
        **({"maybe": row["x"]} if flags & 4 else {}),
    }


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


row_strategy = st.fixed_dictionaries(
    {
        "name": st.text(alphabet="abcdefghij-_.~0123456789", min_size=1, max_size=8),
        "n": st.integers(-(2**40), 2**40),
        "year": st.integers(2000, 2031),
        "x": st.floats(allow_nan=False, allow_infinity=False),
        "y": st.floats(allow_nan=False, allow_infinity=False),
        "list": st.lists(st.integers(0, 9999), max_size=4),
        "flags": st.integers(0, 7),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(row_strategy, min_size=1, max_size=7))
def test_json_and_arrow_equal_the_template_written_out(rows: list[dict[str, Any]]) -> None:
    expected = [_expected(r, r["flags"]) for r in rows]
    columns: dict[str, Any] = {k: [r[k] for r in rows] for k in rows[0]}
    texts = JsonRenderer(TEMPLATE).render(columns, columns["flags"])
    assert [json.loads(t) for t in texts] == expected

    arrays: dict[str, Any] = {k: np.array(columns[k]) for k in ("x", "y", "flags", "n")}
    as_text = {k: np.array([str(v) for v in columns[k]], dtype=object) for k in ("name", "year")}
    # a slot that is both a number and part of a text comes as text for the text
    template = {**TEMPLATE, "id": Text("a{name}b{n_text}%")}
    as_text["n_text"] = np.array([str(v) for v in columns["n"]], dtype=object)
    rendered = ArrowRenderer(template).render({**arrays, **as_text, "list": columns["list"]}, arrays["flags"])
    for i, want in enumerate(expected):
        got = {k: v[i].as_py() for k, v in rendered.items()}
        got["time"] = got["time"].strftime("%Y-%m-%dT%H:%M:%SZ")
        assert _without_nulls(got) == want


def test_a_shorter_batch_reuses_the_constants_of_a_longer_one() -> None:
    template = {"bands": [{"name": "b0"}, {"name": "b1"}], "n": Number("n")}
    renderer = ArrowRenderer(template)
    for n in (3, 5, 2):
        out = renderer.render({"n": np.arange(n)}, np.zeros(n, dtype=np.int32))
        assert out["bands"].to_pylist() == [[{"name": "b0"}, {"name": "b1"}]] * n


def test_a_template_without_slots_is_rendered_once_a_row() -> None:
    renderer = JsonRenderer({"type": "Feature", "maybe": When(4, "100 %")})
    assert renderer.render({}, [0, 0]) == ['{"type":"Feature"}'] * 2
    assert renderer.render({}, [0, 4]) == ['{"type":"Feature"}', '{"type":"Feature","maybe":"100 %"}']
