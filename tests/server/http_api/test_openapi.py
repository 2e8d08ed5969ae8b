"""The description of the HTTP API, compared with what the API does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from server.errors import HTTP_STATUS
from server.http_api.openapi import document

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent
CONTRACT = ROOT / "protocol" / "convoy" / "v1" / "classifier.proto"


class Gateway(Protocol):
    http: str


@pytest.fixture
def served(lenet_gateway: Gateway) -> dict[str, Any]:
    answer = httpx.get(f"{lenet_gateway.http}/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    return dict(answer.json())


def test_the_document_is_openapi_3_1(served: dict[str, Any]) -> None:
    import openapi_spec_validator  # takes 3 s, in each worker if on top

    assert served["openapi"].startswith("3.1.")
    openapi_spec_validator.validate(served)


def comments_of_the_contract() -> dict[str, str]:
    """The comment above each field, by "Message.field", read from classifier.proto as text."""
    comments: dict[str, str] = {}
    message, lines = "", []
    for line in map(str.strip, CONTRACT.read_text(encoding="utf-8").splitlines()):
        if line.startswith("//"):
            lines.append(line.removeprefix("//").strip())
            continue
        if opened := re.match(r"message (\w+) \{", line):
            message = opened[1]
        elif field := re.match(r"(?:repeated |optional )?[\w.<>, ]+ (\w+) = \d+;", line):
            comments[f"{message}.{field[1]}"] = " ".join(lines)
        lines = []
    return comments


def test_every_field_of_the_contract_has_its_comment(served: dict[str, Any]) -> None:
    comments = comments_of_the_contract()
    assert len(comments) > 80
    compared = set()
    for name, schema in served["components"]["schemas"].items():
        for field, inner in schema.get("properties", {}).items():
            full_name = f"{name}.{field}".replace("BatchItem.", "ClassifyRequest.")
            # Problem, Status and GatewayStatus are no messages of the contract. The path names the
            # model, so the document says something else about that field.
            if (
                name not in ("Problem", "Status", "GatewayStatus")
                and full_name != "ClassifyRequest.model"
            ):
                assert inner.get("description", "") == comments[full_name], full_name
                compared.add(full_name)
    assert {"ClassifyRequest.top_k", "ItemResult.error", "Manifest.versions"} <= compared
    assert all(comments[full_name] for full_name in compared if full_name.startswith("Timing."))


def test_every_reason_is_listed_under_its_status(served: dict[str, Any]) -> None:
    operations = [
        operation for methods in served["paths"].values() for operation in methods.values()
    ]
    for reason, status in HTTP_STATUS.items():
        responses = [operation["responses"].get(str(int(status)), {}) for operation in operations]
        texts = [response.get("description", "") for response in responses]
        assert any(f"`{reason}`: " in text for text in texts), reason


def test_every_route_of_the_document_exists(lenet_gateway: Gateway, served: dict[str, Any]) -> None:
    assert len(served["paths"]) == 7
    for path, methods in served["paths"].items():
        allowed = httpx.options(lenet_gateway.http + path.replace("{model}", "lenet5"))
        assert {method.upper() for method in methods} <= set(allowed.headers["allow"].split(", "))


def test_the_examples_can_be_sent_as_they_are(
    lenet_gateway: Gateway, served: dict[str, Any]
) -> None:
    model = served["components"]["parameters"]["model"]["example"]
    assert model == "lenet5"
    examples = {
        name: example["value"] for name, example in served["components"]["examples"].items()
    }
    url = f"{lenet_gateway.http}/v1/models/{model}"
    answer = httpx.post(f"{url}:classify", json=examples["ClassifyRequest"]).json()
    assert len(answer["classes"]) == 3 and answer["classes"][0]["score"] > 0.5
    batch = httpx.post(f"{url}:batchClassify", json=examples["BatchClassifyRequest"]).json()
    assert [result["response"]["model"] for result in batch["results"]] == ["lenet5", "lenet5"]


def test_an_invalid_item_of_a_batch_does_not_make_the_batch_invalid(
    lenet_gateway: Gateway, served: dict[str, Any]
) -> None:
    url = f"{lenet_gateway.http}/v1/models/lenet5:batchClassify"
    answer = httpx.post(url, json={"requests": [{}, {"top_k": 0}]})
    assert answer.is_success and all("error" in result for result in answer.json()["results"])
    schemas = served["components"]["schemas"]
    item = schemas["BatchItem"]
    assert schemas["BatchClassifyRequest"]["properties"]["requests"]["items"] == {
        "$ref": "#/components/schemas/BatchItem"
    }
    assert "required" not in item and "minimum" not in item["properties"]["top_k"]
    assert schemas["ClassifyRequest"]["required"] == ["image"]


def test_the_document_demands_a_key_if_the_gateway_does() -> None:
    assert document(None, needs_key=True)["security"] == [{"bearer": []}]
    assert document(None, needs_key=False)["security"] == [{}, {"bearer": []}]


def test_docs_leads_to_the_page(lenet_gateway: Gateway) -> None:
    answer = httpx.get(f"{lenet_gateway.http}/docs")
    assert (answer.status_code, answer.headers["location"]) == (307, "/#/api")


# ---------------------------------------------------------------- Schemathesis


def schemathesis(folder: Path, url: str, *options: str, key: str = "none") -> None:
    """Run every check but positive_data_acceptance; its requests include pictures of a digit."""
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "--config-file", str(HERE / "schemathesis.toml"), "run"]
    hooks = {"SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_images.py"), "CONVOY_API_KEY": key}
    ended = subprocess.run(
        [*command, f"{url}/openapi.json", "--no-color", *options],
        cwd=folder,  # where it stores its findings
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
    """With keys the document demands one, and no operation may answer without it."""
    command = [sys.executable, "-m", "convoy.cli", "key", "tester"]
    created = subprocess.run(
        [*command, "--requests-per-s=1000000", "--burst=1000000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    keys = tmp_path / "keys.toml"
    keys.write_text(created.stdout)
    gateway = serve(f"--repository={repository}", f"--api-keys={keys}")
    gateway.wait_until_ready()
    assert httpx.get(f"{gateway.http}/v1/models").status_code == 401
    schemathesis(tmp_path, gateway.http, "--max-time=60", key=created.stderr.split()[-1])
