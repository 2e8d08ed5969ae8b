"""The files of the page as they are served, and its texts in both languages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from server.page.routes import STATIC, read_assets

MAX_BYTES = 300_000
SOURCES = [path for path in STATIC.glob("*.js") if path.name != "convoy.js"]


def texts(language: str) -> dict[str, str]:
    loaded: dict[str, str] = json.loads((STATIC / "i18n" / f"{language}.json").read_text("utf-8"))
    return loaded


def test_all_files_together_are_small() -> None:
    assert sum(len(asset.content) for asset in read_assets().values()) < MAX_BYTES


def test_every_file_has_its_type_and_the_policy(lenet_gateway: Any) -> None:
    for name in ["", *(f"page/{name}" for name in read_assets())]:
        answer = httpx.get(f"{lenet_gateway.http}/{name}")
        assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
    types = {
        name: httpx.get(f"{lenet_gateway.http}/page/{name}").headers["content-type"]
        for name in ("app.js", "style.css", "catalog.json", "icon.svg", "samples/four.jpg")
    }
    assert [kind.partition(";")[0] for kind in types.values()] == [
        *("text/javascript", "text/css", "application/json", "image/svg+xml", "image/jpeg")
    ]


def test_an_unchanged_file_is_not_sent_again(lenet_gateway: Any) -> None:
    url = f"{lenet_gateway.http}/page/app.js"
    etag = httpx.get(url).headers["etag"]
    answer = httpx.get(url, headers={"if-none-match": etag})
    assert (answer.status_code, answer.content) == (304, b"")
    assert httpx.get(url, headers={"if-none-match": '"another"'}).status_code == 200


def test_nothing_but_the_files_is_served(lenet_gateway: Any) -> None:
    for path in ("/page", "/page/", "/page/routes.py", "/page/../routes.py", "/page/i18n"):
        assert httpx.get(lenet_gateway.http + path).status_code == 404


def test_no_page_takes_it_away(serve: Callable[..., Any], repository: Path) -> None:
    gateway = serve(f"--repository={repository}", "--no-page")
    gateway.wait_until_ready()
    assert httpx.get(f"{gateway.http}/").status_code == 404
    assert httpx.get(f"{gateway.http}/page/app.js").status_code == 404
    assert httpx.get(f"{gateway.http}/docs").headers["location"] == "/openapi.json"


def test_the_files_name_no_other_site() -> None:
    for path in [*SOURCES, STATIC / "index.html", STATIC / "style.css"]:
        addresses = set(re.findall(r"\w+://[^\s\"'`]+", path.read_text("utf-8")))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path.name


def test_both_languages_have_the_same_texts() -> None:
    english, korean = texts("en"), texts("ko")
    assert english.keys() == korean.keys()
    for key, text in english.items():
        assert text and korean[key]
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", korean[key])), key


def test_every_text_of_the_sources_exists_and_every_text_is_used() -> None:
    source = "\n".join(path.read_text("utf-8") for path in SOURCES)
    named = set(re.findall(r'"((?:\w+\.)+\w+)"', source)) | {"loading", "footer"}
    prefixes = tuple(re.findall(r"`((?:\w+\.)+)\$\{", source))
    keys = texts("en").keys()
    called = set(re.findall(r'\bt\("([\w.]+)"', source))
    assert called <= keys
    assert {key for key in keys if key not in named and not key.startswith(prefixes)} == set()
