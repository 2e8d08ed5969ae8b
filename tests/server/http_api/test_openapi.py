"""What the HTTP door says of itself, held against what it does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
import openapi_spec_validator
import pytest

from convoy.v1 import classifier_pb2 as pb
from server.errors import HTTP_STATUS
from server.http_api.openapi import CONTRACT, comments, document

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent


class Gateway(Protocol):
    http: str


@pytest.fixture
def found(lenet_gateway: Gateway) -> dict[str, Any]:
    answer = httpx.get(f"{lenet_gateway.http}/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    return dict(answer.json())


def test_the_document_is_openapi_3_1(found: dict[str, Any]) -> None:
    assert found["openapi"].startswith("3.1.")
    openapi_spec_validator.validate(found)


def test_the_descriptor_is_that_of_the_contract(tmp_path: Path) -> None:
    packages = sysconfig.get_path("purelib")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "protocol", "-I", packages]
    command += ["--include_source_info", f"--descriptor_set_out={tmp_path / 'contract'}"]
    subprocess.run([*command, "protocol/convoy/v1/classifier.proto"], cwd=ROOT, check=True)
    assert (tmp_path / "contract").read_bytes() == CONTRACT.read_bytes(), "run `make protocol`"


def test_every_field_of_the_contract_has_its_comment(found: dict[str, Any]) -> None:
    schemas = found["components"]["schemas"]
    assert schemas["Timing"]["description"] == comments()["convoy.v1.Timing"]
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields if message.name in schemas else []:
            schema = schemas[message.name]["properties"][field.name]
            comment = comments().get(field.full_name)
            # Of the model, the path says more than the contract.
            assert schema.get("description") == comment or field.name == "model"
    assert comments()["convoy.v1.ClassifyRequest.top_k"].startswith("How many classes")
    assert "requests" in schemas["BatchClassifyRequest"]["properties"]


def test_every_reason_is_told_under_its_status(found: dict[str, Any]) -> None:
    operations = [
        operation for methods in found["paths"].values() for operation in methods.values()
    ]
    for reason, status in HTTP_STATUS.items():
        told = [operation["responses"].get(str(int(status)), {}) for operation in operations]
        assert any(f"`{reason}`: " in each.get("description", "") for each in told), reason


def test_every_route_of_the_document_is_there(
    lenet_gateway: Gateway, found: dict[str, Any]
) -> None:
    assert len(found["paths"]) == 6
    for path, methods in found["paths"].items():
        allowed = httpx.options(lenet_gateway.http + path.replace("{model}", "lenet5"))
        assert {method.upper() for method in methods} <= set(allowed.headers["allow"].split(", "))


def test_the_examples_can_be_sent_as_they_are(
    lenet_gateway: Gateway, found: dict[str, Any]
) -> None:
    model = found["components"]["parameters"]["model"]["example"]
    assert model == "lenet5"
    examples = {name: each["value"] for name, each in found["components"]["examples"].items()}
    url = f"{lenet_gateway.http}/v1/models/{model}"
    answer = httpx.post(f"{url}:classify", json=examples["ClassifyRequest"]).json()
    assert len(answer["classes"]) == 3 and answer["classes"][0]["score"] > 0.5
    batch = httpx.post(f"{url}:batchClassify", json=examples["BatchClassifyRequest"]).json()
    assert [each["response"]["model"] for each in batch["results"]] == ["lenet5", "lenet5"]


def test_what_fails_one_item_of_a_batch_alone_is_no_fault_of_the_batch(
    lenet_gateway: Gateway, found: dict[str, Any]
) -> None:
    url = f"{lenet_gateway.http}/v1/models/lenet5:batchClassify"
    answer = httpx.post(url, json={"requests": [{}, {"top_k": 0}]})
    assert answer.is_success and all("error" in each for each in answer.json()["results"])
    schemas = found["components"]["schemas"]
    item = schemas["BatchItem"]
    assert schemas["BatchClassifyRequest"]["properties"]["requests"]["items"] == {
        "$ref": "#/components/schemas/BatchItem"
    }
    assert "required" not in item and "minimum" not in item["properties"]["top_k"]
    assert schemas["ClassifyRequest"]["required"] == ["image"]


def test_a_key_is_asked_for_where_there_are_keys() -> None:
    assert document(None, needs_key=True)["security"] == [{"bearer": []}]
    assert document(None, needs_key=False)["security"] == [{}, {"bearer": []}]


def test_the_page_has_everything_and_loads_nothing_from_elsewhere(
    lenet_gateway: Gateway, found: dict[str, Any]
) -> None:
    page = httpx.get(f"{lenet_gateway.http}/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for name in found["components"]["schemas"]:
        assert f'<section id="{name}">' in page.text
    for path in found["paths"]:
        assert f" {path}</code>" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="([^#][^"]*)"', page.text)
    loaded.remove("data:,")  # no icon, and no request for one
    assert set(loaded) == {"/docs/page.css", "/docs/page.js", "/openapi.json"}
    for path in loaded:
        file = httpx.get(lenet_gateway.http + path)
        assert file.is_success and "://" not in file.text.replace("@type", "")
    links = re.findall(r'href="#([^"]*)"', page.text)
    assert links and all(f'id="{link}"' in page.text for link in links)


# ---------------------------------------------------------------- Schemathesis


def schemathesis(folder: Path, url: str, *options: str, key: str = "none") -> None:
    """Every check but positive_data_acceptance; among what it sends are pictures of a digit."""
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "--config-file", str(HERE / "schemathesis.toml"), "run"]
    hooks = {"SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_images.py"), "CONVOY_API_KEY": key}
    ended = subprocess.run(
        [*command, f"{url}/openapi.json", "--no-color", *options],
        cwd=folder,  # where it keeps what it has found
        env={**os.environ, **hooks},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[:20_000]
    assert "No issues found" in ended.stdout


def test_schemathesis_finds_nothing(lenet_gateway: Gateway, tmp_path: Path) -> None:
    options = ["--phases=examples,coverage,fuzzing", "--max-examples=10"]
    schemathesis(tmp_path, lenet_gateway.http, *options, "--generation-deterministic")


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_minutes(lenet_gateway: Gateway, tmp_path: Path) -> None:
    schemathesis(tmp_path, lenet_gateway.http, "--max-examples=300", "--max-time=180")


@pytest.mark.slow
def test_schemathesis_finds_nothing_where_keys_are_asked_for(
    serve: Callable[..., Any], repository: Path, tmp_path: Path
) -> None:
    """With keys the document demands one, and no operation may answer without."""
    command = [sys.executable, "-m", "convoy.cli", "key", "tester"]
    made = subprocess.run(
        [*command, "--requests-per-s=1000000", "--burst=1000000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    keys = tmp_path / "keys.toml"
    keys.write_text(made.stdout)
    gateway = serve(f"--repository={repository}", f"--api-keys={keys}")
    gateway.wait_until_ready()
    assert httpx.get(f"{gateway.http}/v1/models").status_code == 401
    schemathesis(tmp_path, gateway.http, "--max-time=60", key=made.stderr.split()[-1])
