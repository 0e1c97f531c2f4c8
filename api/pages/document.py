"""The API document for people at ``/api.html``: the OpenAPI document as one page, without scripts."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from api.pages.frame import PAGE_HEADERS, page

Json = Mapping[str, Any]


def add_document(app: FastAPI) -> None:
    """Add ``/api.html``."""

    async def document(_: Request) -> Response:
        described = app.openapi()
        title = str(described["info"]["title"])
        return HTMLResponse(
            page(f"{title}: API", _body(described)), headers={"cache-control": "no-cache", **PAGE_HEADERS}
        )

    app.add_api_route("/api.html", document, include_in_schema=False)


def _body(described: Json) -> str:
    info = described["info"]
    parts = [
        f"<h1>{_text(info['title'])}</h1>",
        f"<p>{_text(info['description'])}</p>",
        f'<p>Version {_text(info["version"])}. For programs: <a href="api">the OpenAPI document</a>.</p>',
    ]
    by_tag: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["Other"])[0]
            by_tag.setdefault(tag, []).append(_operation(path, method, operation))
    for tag, operations in by_tag.items():
        parts += [f"<h2>{_text(tag)}</h2>", *operations]
    return "\n".join(parts) + "\n"


def _operation(path: str, method: str, operation: Json) -> str:
    found = [f"<h3><code>{method.upper()} {_text(path)}</code></h3>"]
    found.append(f"<p>{_text(operation.get('description') or operation.get('summary', ''))}</p>")
    parameters = [
        (p["name"], p.get("in", ""), p.get("description", "")) for p in operation.get("parameters", ())
    ]
    content = operation.get("requestBody", {}).get("content", {})
    for kind in content.values():
        fields = kind.get("schema", {}).get("properties", {})
        parameters += [(name, "body", field.get("description", "")) for name, field in fields.items()]
    if parameters:
        rows = (
            f"<dt><code>{_text(name)}</code> ({_text(where)})</dt><dd>{_text(text)}</dd>"
            for name, where, text in parameters
        )
        found.append(f"<dl>{''.join(rows)}</dl>")
    statuses = ", ".join(
        f"{_text(status)} {_text(answer.get('description', ''))}"
        for status, answer in operation.get("responses", {}).items()
    )
    found.append(f"<p>Responses: {statuses}</p>")
    return "\n".join(found)


def _text(value: object) -> str:
    return html.escape(str(value))
