"""The protocol over HTTP: ids, clients that leave, connections; and the examples of its page."""

from __future__ import annotations

import base64
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.http_api.test_endpoints import logged
from tests.server.open_inference.clients import (
    Gateway,
    an_input,
)

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "open-inference.md").read_text(encoding="utf-8")


def test_a_raw_binary_request_is_one_image_and_nothing_else(url: str, digit: bytes) -> None:
    headers = {"inference-header-content-length": "0", "x-request-id": "mine"}
    answer = httpx.post(f"{url}/infer", content=digit, headers=headers).json()
    assert (answer["id"], answer["outputs"][0]["data"][0]) == ("mine", "7")


def test_an_answer_says_the_id_that_is_in_the_log(
    lenet_gateway: Gateway, url: str, digit: bytes
) -> None:
    raw = {"inference-header-content-length": "0"}
    unnamed = httpx.post(f"{url}/infer", content=digit, headers=raw)
    assert "id" not in unnamed.json(), "only what was given is repeated in the body"
    refused = httpx.post(f"{url}/infer", content=b"no image", headers=raw)
    given = httpx.post(f"{url}/infer", json={**an_input(), "id": "in-the-body"})
    assert given.headers["x-request-id"] == "in-the-body"
    endless = httpx.post(f"{url}/infer", json={**an_input(), "id": "x" * 200})
    assert endless.status_code == 400 and "request_id" in endless.json()["error"]
    assert len(endless.headers["x-request-id"]) < 200
    in_log = {line.get("request_id") for line in logged(lenet_gateway)}
    for answer in (unnamed, refused, given, endless):
        assert answer.headers["x-request-id"] in in_log


def test_what_nobody_waits_for_any_more_is_given_up(
    lenet_gateway: Any, url: str, slow_digit: bytes
) -> None:
    images = [base64.b64encode(slow_digit).decode()] * 64
    request = {**an_input(shape=[64], data=images), "id": "gone"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/infer", json=request, timeout=httpx.Timeout(5, read=0.3))

    def lines() -> list[dict[str, Any]]:
        return [line for line in logged(lenet_gateway) if line.get("request_id") == "gone"]

    lenet_gateway.wait_for(lambda: len(lines()) == 1)
    (line,) = lines()
    assert line["outcome"] == "CANCELLED"
    assert line["failed"] > 32, "the runner was not asked for most of them"


def test_a_client_that_goes_away_is_no_fault_of_the_gateway(
    lenet_gateway: Gateway, url: str, digit: bytes
) -> None:
    faults = lenet_gateway.log().count("internal error")
    host, _, port = lenet_gateway.http.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))) as half_said:
        half_said.sendall(b"POST /v2/models/lenet5/infer HTTP/1.1\r\nhost: x\r\n")
        half_said.sendall(b"content-length: 1000\r\n\r\n{")
    headers = {"inference-header-content-length": "0"}
    assert httpx.post(f"{url}/infer", content=digit, headers=headers).is_success
    assert lenet_gateway.log().count("internal error") == faults


def test_a_kept_connection_is_answered_at_once(lenet_gateway: Gateway) -> None:
    """Head and body of an answer are two packets: Nagle's algorithm would hold the second 40 ms."""
    with httpx.Client(base_url=lenet_gateway.http) as client:
        taken_s = [client.get("/v2/health/live").elapsed.total_seconds() for _ in range(20)]
    assert min(taken_s[5:]) < 0.03


EXAMPLES = [
    (language, code)
    for language, code in re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
    if ":8080" in code
]


@pytest.mark.parametrize(("language", "code"), EXAMPLES)
def test_the_examples_of_the_page_work(lenet_gateway: Gateway, language: str, code: str) -> None:
    code = code.replace("127.0.0.1:8080", lenet_gateway.http.removeprefix("http://"))
    command = [sys.executable, "-c", code] if language == "python" else ["bash", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search("""["']7["']""", done.stdout)
