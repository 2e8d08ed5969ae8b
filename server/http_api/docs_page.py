"""The routes that describe the HTTP API: /docs for people, /openapi.json for programs.

The page is rendered here from the document and loads nothing from other sites.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from convoy.v1 import classifier_pb2 as pb
from server.http_api.openapi import document
from server.versions.pool import Pool

HERE = Path(__file__).parent
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Descriptions:
    """The document and the page, made once for each model that they take their example from.

    Where clients need a key, there is no example: the page is open to all.
    """

    def __init__(self, pool: Pool, *, needs_key: bool) -> None:
        self._pool = pool
        self._needs_key = needs_key
        self._made_for: pb.Model | None = None
        self._made: tuple[bytes, str] | None = None

    async def get(self) -> tuple[bytes, str]:
        example = None if self._needs_key else first_ready(self._pool)
        if self._made is None or example != self._made_for:
            self._made = await asyncio.to_thread(self._make, example)
            self._made_for = example
        return self._made

    def _make(self, example: pb.Model | None) -> tuple[bytes, str]:
        content = document(example, needs_key=self._needs_key)
        return bytes(JSONResponse(content).body), page(example, needs_key=self._needs_key)


def docs_routes(pool: Pool, *, needs_key: bool) -> list[Route]:
    descriptions = Descriptions(pool, needs_key=needs_key)

    async def show_document(request: Request) -> Response:
        text, _ = await descriptions.get()
        return Response(text, media_type="application/json")

    async def show_page(request: Request) -> Response:
        _, text = await descriptions.get()
        return Response(text, headers=HEADERS, media_type="text/html")

    async def show_file(request: Request) -> Response:
        name = request.url.path.removeprefix("/docs/")
        return FileResponse(HERE / f"docs_{name}", headers=HEADERS)

    return [
        Route("/openapi.json", show_document),
        Route("/docs", show_page),
        Route("/docs/page.css", show_file),
        Route("/docs/page.js", show_file),
    ]


def first_ready(pool: Pool) -> pb.Model | None:
    for model in pool.list():
        if model.state == pb.STATE_READY and model.is_default:
            return pool.describe(model.name, model.version)
    return None


# ---------------------------------------------------------------- the page


def page(example: pb.Model | None, *, needs_key: bool) -> str:
    openapi = document(example, needs_key=needs_key)
    return PAGE.format(
        title=html.escape(openapi["info"]["title"]),
        version=html.escape(openapi["info"]["version"]),
        description=to_html(openapi["info"]["description"]),
        model=html.escape(example.name if example else ""),
        operations="\n".join(operations(openapi)),
        schemas="\n".join(schemas(openapi["components"]["schemas"])),
    )


PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title} {version}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/page.css">
<script src="/docs/page.js" defer></script>
<h1>{title} <small>{version}</small></h1>
<p>{description}
<p>For programs: <a href="/openapi.json">/openapi.json</a>, OpenAPI 3.1.
<h2>Try it</h2>
<form id="try">
  <label>Image <input type="file" name="image" accept="image/*" required></label>
  <label>Model <input name="model" value="{model}" required></label>
  <label>Classes <input name="top_k" type="number" min="1" value="5"></label>
  <label>API key <input name="key" type="password" autocomplete="off"></label>
  <button>Classify</button>
</form>
<pre id="command" hidden></pre>
<div id="answer" aria-live="polite"></div>
<h2>Requests</h2>
{operations}
<h2>Messages</h2>
{schemas}
</html>
"""


def operations(openapi: dict[str, Any]) -> Iterator[str]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield OPERATION.format(
                id=html.escape(operation["operationId"]),
                method=method.upper(),
                path=html.escape(path),
                description=to_html(operation.get("description") or operation["summary"]),
                parameters=table(parameters(openapi, operation)),
                body=table(bodies(operation)),
                responses=table(responses(operation)),
            )


OPERATION = """\
<section id="{id}">
<h3><code>{method} {path}</code></h3>
<p>{description}
{parameters}
{body}
{responses}
</section>
"""


def parameters(
    openapi: dict[str, Any], operation: dict[str, Any]
) -> Iterator[tuple[str, str, str]]:
    shared = openapi["components"]["parameters"]
    for listed in operation.get("parameters", []):
        parameter = shared[listed["$ref"].rpartition("/")[2]] if "$ref" in listed else listed
        kind = f"{parameter['in']}, {render_type(parameter['schema'])}"
        yield code(parameter["name"]), kind, to_html(parameter.get("description", ""))


def bodies(operation: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield "body", code(media_type), render_type(content["schema"])


def responses(operation: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for status, response in operation["responses"].items():
        (media_type, content), *_ = response["content"].items()
        description = to_html(response["description"])
        yield code(status), render_type(content["schema"]) or code(media_type), description


def schemas(named: dict[str, Any]) -> Iterator[str]:
    for name, schema in named.items():
        rows = (
            (code(field), render_type(inner), to_html(inner.get("description", "")))
            for field, inner in schema.get("properties", {}).items()
        )
        description = to_html(schema.get("description", ""))
        yield f'<section id="{name}">\n<h3>{name}</h3>\n<p>{description}\n{table(rows)}\n</section>'


def table(rows: Iterator[tuple[str, str, str]]) -> str:
    lines = ["<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows]
    return "\n".join(["<table>", *lines, "</table>"]) if lines else ""


def render_type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = html.escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if schema["type"] == "array":
        return f"list of {render_type(schema['items'])}"
    if schema["type"] == "object" and "properties" in schema:
        fields = schema["properties"].items()
        return ", ".join(f"{code(name)}: {render_type(inner)}" for name, inner in fields)
    kind = schema["type"] if isinstance(schema["type"], str) else schema["type"][0]
    return html.escape(schema.get("contentEncoding") or schema.get("format") or kind)


def code(text: str) -> str:
    return f"<code>{html.escape(text)}</code>"


def to_html(text: str) -> str:
    """Paragraphs, and `code` as in the document's Markdown."""
    parts = html.escape(text).split("`")
    text = "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
    return text.replace("\n\n", "<br>")
