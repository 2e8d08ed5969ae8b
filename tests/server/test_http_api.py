"""The HTTP door, over the wire."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest


class Gateway(Protocol):
    http: str
    operator: str

    def log(self) -> str: ...


@pytest.fixture
def url(lenet_gateway: Gateway) -> str:
    return f"{lenet_gateway.http}/v1/models/lenet5:classify"


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["detail"] == body["error"]
    assert "Traceback" not in body["detail"] and "/" + "server" not in body["detail"]
    return response.status_code, body["reason"]


def test_raw_bytes_are_read_whatever_curl_calls_them(url: str, digit: bytes) -> None:
    for kind in ("application/x-www-form-urlencoded", "image/png", "application/octet-stream"):
        answer = httpx.post(url, content=digit, headers={"content-type": kind}).json()
        assert answer["classes"][0]["label"] == "7"


def test_the_answer_tells_where_it_comes_from(url: str, digit: bytes) -> None:
    answer = httpx.post(url, params={"top_k": 3, "request_id": "mine"}, content=digit).json()
    assert [len(answer["classes"]), answer["classes"][0]["index"]] == [3, 7]
    assert (answer["model"], answer["version"], answer["request_id"]) == ("lenet5", "1", "mine")
    served = answer["served"]
    assert (served["runtime"], served["precision"], served["device"]) == (
        "onnxruntime",
        "fp32",
        "cpu",
    )
    assert (served["weights"], served["batch_size"], len(served["manifest_digest"])) == (
        "digits",
        1,
        64,
    )
    assert answer["image"]["format"] == "PNG"
    stages = answer["timing"]
    assert (
        0 < stages["decode_us"] + stages["preprocess_us"] + stages["infer_us"] <= stages["total_us"]
    )


def test_multipart_and_json_give_the_same_answer_as_raw_bytes(url: str, digit: bytes) -> None:
    raw = httpx.post(url, params={"top_k": 2}, content=digit).json()["classes"]
    multipart = httpx.post(url, params={"top_k": 2}, files={"image": ("digit.png", digit)}).json()
    as_json = {"image": {"content": base64.b64encode(digit).decode()}, "top_k": 2}
    assert multipart["classes"] == raw
    assert httpx.post(url, json=as_json).json()["classes"] == raw


def test_classes_below_min_score_are_left_out(url: str, digit: bytes) -> None:
    answer = httpx.post(url, params={"min_score": 0.5, "top_k": 10}, content=digit).json()
    assert [found["label"] for found in answer["classes"]] == ["7"]


def test_the_request_id_of_the_header_comes_back(url: str, digit: bytes) -> None:
    answer = httpx.post(url, content=digit, headers={"x-request-id": "abc"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "abc"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"content": b""}, (400, "IMAGE_DECODE_FAILED")),
        ({"content": b"GIF89a"}, (400, "IMAGE_DECODE_FAILED")),
        ({"content": b"no picture at all"}, (415, "IMAGE_FORMAT_UNSUPPORTED")),
        ({"content": b"x" * (17 << 20)}, (413, "IMAGE_TOO_LARGE")),
        ({"content": b"x" * (33 << 20)}, (413, "IMAGE_TOO_LARGE")),
        ({"params": {"top_k": 0}}, (400, "MALFORMED_REQUEST")),
        ({"params": {"top_k": "many"}}, (400, "MALFORMED_REQUEST")),
        ({"params": {"min_score": 1.5}}, (400, "MALFORMED_REQUEST")),
        ({"params": {"min_score": "nan"}}, (400, "MALFORMED_REQUEST")),
        ({"params": {"topk": 3}}, (400, "MALFORMED_REQUEST")),
        ({"params": {"version": "9"}}, (404, "VERSION_NOT_FOUND")),
        ({"params": {"version": "one"}}, (404, "VERSION_NOT_FOUND")),
        ({"params": {"request_id": "x" * 200}}, (400, "MALFORMED_REQUEST")),
        ({"headers": {"x-request-timeout-ms": "soon"}}, (400, "MALFORMED_REQUEST")),
        ({"headers": {"x-request-timeout-ms": "0.01"}}, (504, "DEADLINE_EXCEEDED")),
        (
            {"content": b"{", "headers": {"content-type": "application/json"}},
            (400, "MALFORMED_REQUEST"),
        ),
        (
            {"content": b"[" * 9999, "headers": {"content-type": "application/json"}},
            (400, "MALFORMED_REQUEST"),
        ),
        (
            {"content": b"{}", "headers": {"content-type": "application/json"}},
            (400, "MALFORMED_REQUEST"),
        ),
        ({"content": None, "files": {"picture": ("digit.png", b"x")}}, (400, "MALFORMED_REQUEST")),
        (
            {"content": b"--x", "headers": {"content-type": "multipart/form-data"}},
            (400, "MALFORMED_REQUEST"),
        ),
    ],
    ids=[
        "empty",
        "header alone",
        "text",
        "image too large",
        "body too large",
        "top_k 0",
        "top_k word",
        "min_score high",
        "min_score nan",
        "unknown parameter",
        "version",
        "version word",
        "long id",
        "deadline word",
        "deadline over",
        "half JSON",
        "deep JSON",
        "JSON without image",
        "other part",
        "no boundary",
    ],
)
def test_bad_requests_are_named(
    url: str, digit: bytes, arguments: dict[str, Any], expected: tuple[int, str]
) -> None:
    response = httpx.post(url, **{"content": digit, **arguments})
    assert problem(response) == expected
    assert httpx.post(url, content=digit).is_success, "the next request is answered"


def test_an_unknown_model_is_answered_with_the_nearest(
    lenet_gateway: Gateway, digit: bytes
) -> None:
    response = httpx.post(f"{lenet_gateway.http}/v1/models/lenet4:classify", content=digit)
    assert problem(response) == (404, "MODEL_NOT_FOUND")
    assert "lenet5" in response.json()["detail"]


def test_an_unknown_route_or_method_is_a_problem_too(lenet_gateway: Gateway, url: str) -> None:
    assert problem(httpx.get(f"{lenet_gateway.http}/v9")) == (404, "")
    assert problem(httpx.get(url)) == (405, "")


def test_models_are_listed_without_what_is_heavy(lenet_gateway: Gateway) -> None:
    (model,) = httpx.get(f"{lenet_gateway.http}/v1/models").json()["models"]
    assert (model["name"], model["version"], model["state"]) == ("lenet5", "1", "STATE_READY")
    assert model["is_default"] and not model["labels"] and not model["golden_images"]


def test_a_model_is_told_with_everything(lenet_gateway: Gateway, shipped_lenet5: Path) -> None:
    model = httpx.get(f"{lenet_gateway.http}/v1/models/lenet5").json()
    assert [label["name"] for label in model["labels"]] == list("0123456789")
    assert model["manifest"]["parameters"] == 60_000
    assert model["manifest_digest"] in (shipped_lenet5 / "config.pbtxt").read_text()
    accuracy = {found["measured"]: found for found in model["manifest"]["accuracy"]}
    assert len(accuracy) >= 2 and all(found["total"] >= 359 for found in accuracy.values())


def test_probes_and_metrics(lenet_gateway: Gateway, url: str, digit: bytes) -> None:
    for base in (lenet_gateway.http, lenet_gateway.operator):
        assert httpx.get(f"{base}/livez").text == "live\n"
        assert httpx.get(f"{base}/readyz").text == "ready\n"
    httpx.post(url, content=digit)
    metrics = httpx.get(f"{lenet_gateway.operator}/metrics").text
    assert 'convoy_requests_total{door="http",model="lenet5",reason="OK"}' in metrics
    assert 'convoy_model_ready{model="lenet5",version="1"} 1.0' in metrics
    assert httpx.get(f"{lenet_gateway.http}/metrics").status_code == 404


def test_a_name_that_nobody_knows_is_no_metric(lenet_gateway: Gateway, digit: bytes) -> None:
    httpx.post(f"{lenet_gateway.http}/v1/models/invented-name:classify", content=digit)
    assert "invented-name" not in httpx.get(f"{lenet_gateway.operator}/metrics").text


def test_a_16_mb_body_is_answered(url: str) -> None:
    content = b"\x89PNG\r\n\x1a\n" + bytes((16 << 20) - 8)
    as_json = {"image": {"content": base64.b64encode(content).decode()}}
    assert problem(httpx.post(url, json=as_json, timeout=30)) == (400, "IMAGE_DECODE_FAILED")


def test_every_request_leaves_one_line_in_the_log(
    lenet_gateway: Gateway, url: str, digit: bytes
) -> None:
    httpx.post(url, params={"request_id": "logged"}, content=digit)
    lines = [json.loads(line) for line in lenet_gateway.log().splitlines() if "logged" in line]
    (line,) = [line for line in lines if line.get("request_id") == "logged"]
    assert (line["outcome"], line["model"], line["version"]) == ("OK", "lenet5", "1")
    assert line["image_bytes"] == len(digit)
