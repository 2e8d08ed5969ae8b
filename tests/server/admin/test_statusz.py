"""/statusz, as a browser, a program and curl request it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from convoy.v1 import classifier_pb2 as pb

SCRIPT = "<script>alert(1)</script>"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Gateway(Protocol):
    http: str
    admin: str

    def wait_for(self, is_so: Callable[[], bool]) -> None: ...


class Page(HTMLParser):
    """The tags of a page, their attributes, and the cells of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self._is_in_table = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._is_in_table = tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        self._is_in_table = False

    def handle_data(self, data: str) -> None:
        if self._is_in_table:
            self.cells += re.split(r"  +|\n", data)


def status(gateway: Gateway, accept: str) -> httpx.Response:
    answer = httpx.get(f"{gateway.admin}/statusz", headers={"accept": accept})
    return answer.raise_for_status()


def facts(gateway: Gateway) -> dict[str, Any]:
    answer: dict[str, Any] = status(gateway, "application/json").json()
    return answer


@pytest.fixture
def three_versions(
    repository: Path, edit_facts: Callable[[Path, Callable[[pb.Model], None]], None]
) -> Path:
    """Version 1 is valid, 2 has random weights and a script as precision, 3 a truncated file."""
    first = repository / "lenet5.v1"
    for number in (2, 3):
        shutil.copytree(first, repository / f"lenet5.v{number}")

    def disguise(model: pb.Model) -> None:
        model.manifest.weights.source = "random"
        model.manifest.precision = SCRIPT

    edit_facts(repository / "lenet5.v2", disguise)
    model_path = repository / "lenet5.v3" / "1" / "model.onnx"
    model_path.write_bytes(model_path.read_bytes()[:1000])
    return repository


def test_versions_are_listed_with_their_state_and_why_they_are_not_ready(
    three_versions: Path, serve: Callable[..., Any], digit: bytes
) -> None:
    gateway = serve(f"--repository={three_versions}")
    gateway.wait_until_ready()
    third, second, first = facts(gateway)["models"]
    assert (third["version"], third["state"], third["is_default"]) == ("3", "FAILED", False)
    assert "model.onnx cannot be loaded" in third["why_not_ready"]
    assert (second["state"], second["is_default"]) == ("READY", True)
    assert (second["weights"], second["device"], second["why_not_ready"]) == ("random", "cpu", "")
    assert first["state"] == "AVAILABLE"

    text = status(gateway, "*/*").text
    assert "RANDOM: answers are meaningless" in text
    assert re.search(r"^lenet5 +3 +FAILED .* cannot be loaded", text, re.MULTILINE)
    metrics = httpx.get(f"{gateway.admin}/metrics").text
    for version, value in (("3", "1.0"), ("2", "0.0")):
        assert f'convoy_model_failed{{model="lenet5",version="{version}"}} {value}' in metrics

    page = status(gateway, BROWSER).text
    assert SCRIPT not in page
    assert SCRIPT in Page(page).cells


def test_the_page_has_no_script_and_nothing_from_other_sites(lenet_gateway: Gateway) -> None:
    answer = status(lenet_gateway, BROWSER)
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = Page(answer.text)
    assert not page.tags & {"script", "link", "img", "iframe", "form", "object"}
    assert page.attributes <= {"lang", "charset"}
    assert "url(" not in answer.text and "@import" not in answer.text
    assert {"lenet5", "READY", "in-process"} <= set(page.cells)


def test_parity_and_traffic_are_reported(lenet_gateway: Gateway, digit: bytes) -> None:
    model = httpx.get(f"{lenet_gateway.http}/v1/models/lenet5").json()
    before = traffic(lenet_gateway)
    url = f"{lenet_gateway.http}/v1/models/lenet5:classify"
    for _ in range(8):
        httpx.post(url, content=digit)
    httpx.post(url, content=b"no picture")
    after = traffic(lenet_gateway)
    assert after["requests"] - before.get("requests", 0) == 9
    reason = "IMAGE_FORMAT_UNSUPPORTED"
    assert after["errors"][reason] - before.get("errors", {}).get(reason, 0) == 1
    # Over all requests to this gateway: other tests may have kept it busy.
    assert 0 < after["p50_ms"] <= after["p99_ms"]

    (shown,) = (model for model in facts(lenet_gateway)["models"] if model["model"] == "lenet5")
    assert shown["manifest_digest"] == model["manifest_digest"]
    for rung, expected in zip(shown["parity"], model["parity"], strict=True):
        assert rung["name"] == expected["name"]
        assert rung["largest_difference"] == expected["largest_difference"]
        assert rung["tolerance"] == expected["tolerance"]
    text = status(lenet_gateway, "*/*").text
    assert model["parity"][0]["name"] in text and reason in text


def traffic(gateway: Gateway) -> dict[str, Any]:
    return next((row for row in facts(gateway)["traffic"] if row["model"] == "lenet5"), {})


def test_the_gateway_its_runner_and_its_settings_are_reported(lenet_gateway: Gateway) -> None:
    status_facts = facts(lenet_gateway)
    assert status_facts["gateway"]["is_ready"] and status_facts["gateway"]["uptime_s"] > 0
    assert re.match(r"fast_image_resize \(\w+\)|Pillow", status_facts["gateway"]["resizer"])
    (runner,) = status_facts["runners"]
    assert (runner["name"], runner["is_reachable"], runner["fault"]) == ("in-process", True, "")
    assert runner["images"]["OK"] >= 1, "its golden images at least"
    assert status_facts["settings"]["max_image_pixels"] == 1_000_000
    assert status_facts["settings"]["models"] == ["lenet5"]


def test_an_unreachable_triton_is_reported(serve: Callable[..., Any]) -> None:
    gateway = serve("--triton=127.0.0.1:9")
    gateway.wait_for(lambda: "cannot be reached" in facts(gateway)["gateway"]["why_not_ready"])
    status_facts = facts(gateway)
    (runner,) = status_facts["runners"]
    assert (runner["name"], runner["is_reachable"]) == ("127.0.0.1:9", False)
    assert not status_facts["gateway"]["is_ready"]
    assert "cannot be reached" in status_facts["gateway"]["why_not_ready"]
    assert (
        'convoy_runner_up{runner="127.0.0.1:9"} 0.0' in httpx.get(f"{gateway.admin}/metrics").text
    )


def test_clients_do_not_see_it(lenet_gateway: Gateway) -> None:
    assert httpx.get(f"{lenet_gateway.http}/statusz").status_code == 404


def test_the_api_gives_the_same_facts_but_the_settings(lenet_gateway: Any, digit: bytes) -> None:
    httpx.post(f"{lenet_gateway.http}/v1/models/lenet5:classify", content=digit)
    status = httpx.get(f"{lenet_gateway.http}/v1/status").json()
    assert status["models"] == facts(lenet_gateway)["models"]
    assert status.keys() == facts(lenet_gateway).keys() - {"settings"}
    (traffic,) = [it for it in status["traffic"] if it["model"] == "lenet5"]
    assert {"decode", "preprocess", "infer", "total"} <= traffic["stages"].keys()
    assert traffic["stages"]["total"]["count"] == sum(count for _, count in traffic["batches"])
