"""The HTTP door, over the wire."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image


class Gateway(Protocol):
    http: str
    admin: str

    def log(self) -> str: ...
    def wait_for(self, is_so: Callable[[], bool]) -> None: ...


@pytest.fixture
def url(lenet_gateway: Gateway) -> str:
    return f"{lenet_gateway.http}/v1/models/lenet5:classify"


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["detail"] == body["error"]
    assert body["request_id"] and body["request_id"] == response.headers["x-request-id"]
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
    assert [class_["label"] for class_ in answer["classes"]] == ["7"]


def test_options_of_the_body_count_before_those_of_the_query(url: str, digit: bytes) -> None:
    as_json = {"image": {"content": base64.b64encode(digit).decode()}, "top_k": 2}
    answer = httpx.post(url, params={"top_k": 3, "request_id": "of-query"}, json=as_json).json()
    assert (len(answer["classes"]), answer["request_id"]) == (2, "of-query")


def test_a_body_may_name_the_model_of_the_path_and_no_other(url: str, digit: bytes) -> None:
    as_json = {"image": {"content": base64.b64encode(digit).decode()}, "model": "lenet5"}
    assert httpx.post(url, json=as_json).is_success
    refused = httpx.post(url, json={**as_json, "model": "resnet152"})
    assert problem(refused) == (400, "MALFORMED_REQUEST")
    assert "'resnet152'" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-d", "@{}"], "as curl -d does: use curl --data-binary @photo.jpg"),
        (["-d", "photo.jpg"], "is the name of a file: send the content"),
        (["-F", "image=photo.jpg"], "-F image=@photo.jpg"),
        (["-d", "image=@photo.jpg"], "-F image=@photo.jpg"),
        (["-H", "content-type: text/plain", "-d", '{"image": {}}'], "application/json"),
    ],
)
@pytest.mark.parametrize("name", ["photo.jpg", "digit.png"])
def test_a_mistake_with_curl_is_named(
    url: str, digit: bytes, tmp_path: Path, name: str, options: list[str], message: str
) -> None:
    path = tmp_path / name
    Image.open(io.BytesIO(digit)).convert("RGB").save(path)
    arguments = [option.format(path) if "{}" in option[:3] else option for option in options]
    command = ["curl", "-s", "--max-time", "60", *arguments, url]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert answer["reason"] == "MALFORMED_REQUEST"
    assert message in answer["detail"]
    command = ["curl", "-s", "--max-time", "60", "--data-binary", f"@{path}", url]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert answer["classes"][0]["label"] == "7"


def test_a_data_uri_in_json_is_named(url: str, digit: bytes) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(digit).decode()}"
    refused = httpx.post(url, json={"image": {"content": uri}})
    assert problem(refused) == (400, "MALFORMED_REQUEST")
    assert "data: URI, must be the base64 that follows its comma" in refused.json()["detail"]


def test_base64_of_base64_is_named(url: str, digit: bytes) -> None:
    twice = base64.b64encode(base64.b64encode(digit)).decode()
    refused = httpx.post(url, json={"image": {"content": twice}})
    assert problem(refused) == (400, "MALFORMED_REQUEST")
    assert "is in base64" in refused.json()["detail"]


def test_a_compressed_body_is_refused_by_name(url: str, digit: bytes) -> None:
    refused = httpx.post(url, content=digit, headers={"content-encoding": "gzip"})
    assert problem(refused) == (400, "MALFORMED_REQUEST")
    assert "gzip" in refused.json()["detail"]


# ---------------------------------------------------------------- several images


@pytest.fixture
def batch_url(lenet_gateway: Gateway) -> str:
    return f"{lenet_gateway.http}/v1/models/lenet5:batchClassify"


def test_a_batch_is_answered_in_order_and_a_bad_image_fails_alone(
    batch_url: str, digit: bytes
) -> None:
    good = {"image": {"content": base64.b64encode(digit).decode()}, "top_k": 1}
    bad = {"image": {"content": base64.b64encode(digit[:900]).decode()}, "request_id": "half"}
    answer = httpx.post(batch_url, json={"requests": [good, bad, {**good, "top_k": 2}]})
    first, second, third = answer.json()["results"]
    assert [len(found["response"]["classes"]) for found in (first, third)] == [1, 2]
    assert first["response"]["classes"][0]["label"] == "7"
    assert first["request_id"] == first["response"]["request_id"] != third["request_id"]
    assert (second["request_id"], second["error"]["code"]) == ("half", 3)
    assert second["error"]["message"].startswith("The PNG image of 900 bytes is truncated")
    (info,) = second["error"]["details"]
    assert (info["reason"], info["domain"]) == ("IMAGE_DECODE_FAILED", "convoy.v1")


def test_the_parts_of_a_form_are_a_batch_with_the_options_of_the_query(
    batch_url: str, digit: bytes
) -> None:
    parts = [("image", ("a.png", digit)), ("image", ("b.png", b"")), ("image", ("c.png", digit))]
    answer = httpx.post(batch_url, params={"top_k": 2}, files=parts).json()
    assert [list(result)[1] for result in answer["results"]] == ["response", "error", "response"]
    assert [len(answer["results"][i]["response"]["classes"]) for i in (0, 2)] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"json": {"requests": []}}, "has 0 requests"),
        ({"json": {"requests": [{}] * 65}}, "more than 64 items"),
        ({"files": [("image", ("a.png", b"x"))] * 65}, "Too many files"),
        ({"files": [("image", ("a.png", b"x")), ("mask", ("b.png", b"x"))]}, "named image"),
        ({"files": {"image": ("a.png", b"x")}, "data": {"top_k": "1"}}, "Too many fields"),
        ({"json": {"requests": [{}, {"model": "resnet152"}]}}, "'resnet152'"),
        ({"json": {"requests": [{}]}, "params": {"request_id": "x"}}, "'request_id'"),
        ({"content": b"x"}, "the content type is missing"),
        ({"content": b"x", "headers": {"content-type": "image/png"}}, "is image/png"),
    ],
)
def test_a_batch_that_is_none_is_refused_as_a_whole(
    batch_url: str, arguments: dict[str, Any], words: str
) -> None:
    refused = httpx.post(batch_url, **arguments)
    assert problem(refused) == (400, "MALFORMED_REQUEST")
    assert words in refused.json()["detail"]


def test_json_of_nothing_but_brackets_is_refused_before_it_fills_the_memory(
    url: str, batch_url: str
) -> None:
    content = b'{"requests": [' + b"{}," * 10_001
    for address in (url, batch_url):
        headers = {"content-type": "application/json"}
        refused = httpx.post(address, content=content, headers=headers)
        assert problem(refused) == (400, "MALFORMED_REQUEST")
        assert refused.json()["detail"] == "the JSON has more than 10000 values"


# ---------------------------------------------------------------- what accompanies an answer


def test_every_answer_tells_its_request_and_its_time(
    lenet_gateway: Gateway, url: str, digit: bytes
) -> None:
    mine = {"x-request-id": "mine"}
    answers = [
        httpx.get(lenet_gateway.http + path, headers=mine)
        for path in ("/livez", "/readyz", "/v1/models", "/v1/models/no", "/v9", "/docs")
    ]
    answers += [httpx.post(url, content=digit, headers=mine), httpx.post(url, headers=mine)]
    for answer in answers:
        assert answer.headers["x-request-id"] == "mine"
        assert re.search(r"\btotal;dur=\d+\.\d+$", answer.headers["server-timing"])


def test_server_timing_has_every_stage_of_a_classification(url: str, digit: bytes) -> None:
    answer = httpx.post(url, content=digit)
    stages_ms = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
    assert set(stages_ms) == {"decode", "preprocess", "queue", "compute", "infer", "total"}
    stages = answer.json()["timing"]
    for name in set(stages_ms) - {"total"}:
        assert float(stages_ms[name]) == stages[f"{name}_us"] / 1e3
    assert float(stages_ms["total"]) >= stages["total_us"] / 1e3


def test_a_request_id_that_no_header_can_carry_breaks_none(url: str, digit: bytes) -> None:
    answer = httpx.post(url, params={"request_id": "sieben 七"}, content=digit)
    assert answer.json()["request_id"] == "sieben 七"
    assert answer.headers["x-request-id"] == "sieben??"
    injected = httpx.post(url, params={"request_id": "x\r\nset-cookie: a=b"}, content=digit)
    assert problem(injected) == (400, "MALFORMED_REQUEST")
    assert "set-cookie" not in injected.headers


def test_a_request_id_header_that_is_unusable_is_replaced(url: str, digit: bytes) -> None:
    for given in ("x" * 129, "é", "a b"):
        answer = httpx.post(url, content=digit, headers={b"x-request-id": given.encode("latin-1")})
        assert answer.is_success
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


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


@pytest.mark.parametrize("name", ["min_score", "minScore"])
def test_a_boolean_is_no_number(lenet_gateway: Gateway, url: str, digit: bytes, name: str) -> None:
    asked = {"image": {"content": base64.b64encode(digit).decode()}, name: True}
    batch_url = f"{lenet_gateway.http}/v1/models/lenet5:batchClassify"
    for answer in (httpx.post(url, json=asked), httpx.post(batch_url, json={"requests": [asked]})):
        assert problem(answer) == (400, "MALFORMED_REQUEST")
        assert f"{name} is true, must be a number" in answer.json()["detail"]


def test_an_option_that_is_given_twice_is_refused(url: str, digit: bytes) -> None:
    image = base64.b64encode(digit).decode()
    asked = f'{{"image": {{"content": "{image}"}}, "top_k": 1, "top_k": 2}}'
    headers = {"content-type": "application/json"}
    assert problem(httpx.post(url, content=asked, headers=headers)) == (400, "MALFORMED_REQUEST")


def test_an_unknown_model_is_answered_with_the_nearest(
    lenet_gateway: Gateway, digit: bytes
) -> None:
    response = httpx.post(f"{lenet_gateway.http}/v1/models/lenet4:classify", content=digit)
    assert problem(response) == (404, "MODEL_NOT_FOUND")
    assert "lenet5" in response.json()["detail"]


def test_an_unknown_route_or_method_is_a_problem_too(lenet_gateway: Gateway, url: str) -> None:
    for path in ("/v9", "/v1/models/", "/v1/models/lenet5:explain", "/page/routes.py"):
        assert problem(httpx.get(lenet_gateway.http + path)) == (404, "")
    assert problem(httpx.get(url)) == (405, "")
    assert httpx.get(url).headers["allow"] == "POST"


def test_head_and_options_tell_what_a_route_has(lenet_gateway: Gateway, url: str) -> None:
    assert httpx.options(url).headers["allow"] == "POST"
    assert httpx.options(url).status_code == 204
    models = f"{lenet_gateway.http}/v1/models"
    assert httpx.head(models).headers["content-length"] == str(len(httpx.get(models).content))
    assert not httpx.head(models).content


def test_query_parameters_that_do_not_exist_are_refused_everywhere(
    lenet_gateway: Gateway, url: str, digit: bytes
) -> None:
    for path in ("/v1/models?versions=1", "/v1/models/lenet5?top_k=1"):
        assert problem(httpx.get(lenet_gateway.http + path)) == (400, "MALFORMED_REQUEST")
    for query in ("model=lenet5", "image=x", "topK=1", "top_k=1&top_k=2"):
        refused = httpx.post(f"{url}?{query}", content=digit)
        assert problem(refused) == (400, "MALFORMED_REQUEST")


def test_models_are_listed_without_what_is_heavy(lenet_gateway: Gateway) -> None:
    (model,) = httpx.get(f"{lenet_gateway.http}/v1/models").json()["models"]
    assert (model["name"], model["version"], model["state"]) == ("lenet5", "1", "STATE_READY")
    assert model["is_default"] and not model["labels"] and not model["golden_images"]


def test_a_model_is_told_with_everything(lenet_gateway: Gateway, shipped_lenet5: Path) -> None:
    model = httpx.get(f"{lenet_gateway.http}/v1/models/lenet5").json()
    assert [label["name"] for label in model["labels"]] == list("0123456789")
    assert model["manifest"]["parameters"] == 60_000
    assert model["manifest_digest"] in (shipped_lenet5 / "config.pbtxt").read_text()
    accuracy = {figure["measured"]: figure for figure in model["manifest"]["accuracy"]}
    assert len(accuracy) >= 2 and all(value["total"] >= 359 for value in accuracy.values())


def test_probes_and_metrics(lenet_gateway: Gateway, url: str, digit: bytes) -> None:
    for base in (lenet_gateway.http, lenet_gateway.admin):
        assert httpx.get(f"{base}/livez").text == "live\n"
        assert httpx.get(f"{base}/readyz").text == "ready\n"
    httpx.post(url, content=digit)
    metrics = httpx.get(f"{lenet_gateway.admin}/metrics").text
    assert 'convoy_requests_total{door="http",model="lenet5",reason="OK"}' in metrics
    assert 'convoy_model_ready{model="lenet5",version="1"} 1.0' in metrics
    assert httpx.get(f"{lenet_gateway.http}/metrics").status_code == 404


def test_a_name_that_nobody_knows_is_no_metric(lenet_gateway: Gateway, digit: bytes) -> None:
    httpx.post(f"{lenet_gateway.http}/v1/models/invented-name:classify", content=digit)
    assert "invented-name" not in httpx.get(f"{lenet_gateway.admin}/metrics").text


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


def logged(gateway: Gateway) -> list[dict[str, Any]]:
    """Its lines; those of native code, such as libtiff's, are no JSON."""
    lines = gateway.log().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_what_the_door_refuses_is_in_the_log_and_the_metrics_too(
    lenet_gateway: Gateway, url: str, digit: bytes
) -> None:
    httpx.post(url, params={"topk": 1}, content=digit, headers={"x-request-id": "refused-1"})
    lines = logged(lenet_gateway)
    (line,) = [line for line in lines if line.get("request_id") == "refused-1"]
    assert (line["outcome"], line["model"]) == ("MALFORMED_REQUEST", "lenet5")
    metrics = httpx.get(f"{lenet_gateway.admin}/metrics").text
    assert '{door="http",model="lenet5",reason="MALFORMED_REQUEST"}' in metrics


# ---------------------------------------------------------------- bodies that are on their way


CLASSIFY, INFER = "/v1/models/lenet5:classify", "/v2/models/lenet5/infer"


@contextlib.contextmanager
def sending(
    gateway: Gateway, head: str, body: bytes = b"", *, path: str = CLASSIFY
) -> Iterator[socket.socket]:
    """A client that has sent so much, and waits."""
    address = urlsplit(gateway.http)
    assert address.hostname and address.port
    with socket.create_connection((address.hostname, address.port), timeout=10) as client:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n"
        client.sendall(head.encode() + body)
        yield client


@pytest.mark.parametrize("path", [CLASSIFY, INFER])
def test_the_deadline_counts_while_the_body_arrives(lenet_gateway: Gateway, path: str) -> None:
    began_s = time.monotonic()
    head = "content-length: 1000\r\nx-request-timeout-ms: 200"
    with sending(lenet_gateway, head, b"x" * 500, path=path) as client:
        answer = HTTPResponse(client)
        answer.begin()
        assert (answer.status, json.load(answer)["reason"]) == (504, "DEADLINE_EXCEEDED")
    assert time.monotonic() - began_s >= 0.2


def test_a_body_is_asked_for_only_if_it_may_come(lenet_gateway: Gateway, digit: bytes) -> None:
    head = "expect: 100-continue\r\nconnection: close\r\ncontent-length: "
    with sending(lenet_gateway, f"{head}{33 << 20}") as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
    with sending(lenet_gateway, f"{head}{len(digit)}") as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 100 ")
        client.sendall(digit)
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_half_a_body_is_held_and_let_go_with_its_client(
    serve: Callable[..., Any], repository: Path, digit: bytes
) -> None:
    gateway = serve(f"--repository={repository}", "--max-in-flight-bytes=100000")
    gateway.wait_until_ready()
    url = f"{gateway.http}/v1/models/lenet5:classify"

    def status() -> int:
        return httpx.post(url, content=digit + bytes(70_000 - len(digit))).status_code

    assert status() == 200, "bytes after the picture do not matter"
    with sending(gateway, "content-length: 80000", bytes(50_000)):
        gateway.wait_for(lambda: status() == 429)
        refused = httpx.post(url, content=bytes(70_000))
        assert problem(refused) == (429, "OVERLOADED")
        assert int(refused.headers["retry-after"]) >= 1
        as_json = {"image": {"content": base64.b64encode(bytes(50_000)).decode()}}
        assert problem(httpx.post(url, json=as_json)) == (429, "OVERLOADED")
        multipart = httpx.post(url, files={"image": ("x.png", bytes(60_000))})
        assert problem(multipart) == (429, "OVERLOADED")
    gateway.wait_for(lambda: status() == 200)


@pytest.mark.parametrize("after_s", [0.02, 0.2])  # the second: when some images are prepared
def test_what_nobody_waits_for_any_more_is_given_up(
    lenet_gateway: Gateway, batch_url: str, slow_digit: bytes, after_s: float
) -> None:
    image = {"content": base64.b64encode(slow_digit).decode()}
    name = f"gone-after-{after_s}"
    body = {"requests": [{"image": image}] * 64}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            batch_url,
            json=body,
            headers={"x-request-id": name},
            timeout=httpx.Timeout(5, read=after_s),
        )

    def lines() -> list[dict[str, Any]]:
        return [line for line in logged(lenet_gateway) if line.get("request_id") == name]

    lenet_gateway.wait_for(lambda: len(lines()) == 1)
    (line,) = lines()
    assert line["outcome"] == "CANCELLED"
    assert line["failed"] > 32, "the runner was not asked for most of them"


@pytest.mark.parametrize("path", [CLASSIFY, INFER])
def test_a_client_that_leaves_in_the_middle_of_its_body_is_logged(
    lenet_gateway: Gateway, path: str
) -> None:
    name = f"half-sent-{path[1:3]}"
    with sending(lenet_gateway, f"content-length: 1000\r\nx-request-id: {name}", b"x", path=path):
        pass
    lenet_gateway.wait_for(lambda: f'"{name}"' in lenet_gateway.log())
    (line,) = [line for line in logged(lenet_gateway) if line.get("request_id") == name]
    assert line["outcome"] == "CANCELLED"
