"""The page for people at `/`: its files are in memory, public and without a name of a model.

All that it shows comes from the API, with the key of who looks at it.
"""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

STATIC = Path(__file__).with_name("static")
PREFIX = "/page/"
# No inline script or style, nothing from other sites, in no frame. Pictures that people choose are
# blob: addresses; what networks saw arrives inside answers.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",  # asked for again each time, and answered by 304
}


@dataclass(frozen=True)
class Asset:
    content: bytes
    media_type: str
    etag: str


def read_assets(folder: Path = STATIC) -> dict[str, Asset]:
    """By their paths in the folder, such as "i18n/en.json"."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): read_asset(path) for path in paths}


def read_asset(path: Path) -> Asset:
    content = path.read_bytes()
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def page_routes() -> list[Route]:
    """A route for each file: nothing else can be asked for."""
    assets = read_assets()
    routes = [asset_route(PREFIX + name, asset) for name, asset in assets.items()]
    return [asset_route("/", assets["index.html"]), *routes]


def asset_route(path: str, asset: Asset) -> Route:
    headers = {**HEADERS, "etag": asset.etag}

    async def show(request: Request) -> Response:
        if asset.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(asset.content, headers=headers, media_type=asset.media_type)

    return Route(path, show)
