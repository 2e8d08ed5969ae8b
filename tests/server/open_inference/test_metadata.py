"""Health, metadata and configuration of models can be read, and nothing can be changed."""

from __future__ import annotations

from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from tests.server.open_inference.clients import (
    as_json,
    whole,
)


def test_health_follows_readiness(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("lenet5")
    assert client.is_model_ready("lenet5", "1")
    assert not client.is_model_ready("lenet5", "2")
    assert not client.is_model_ready("vgg16")


def test_the_model_describes_itself(client: Any) -> None:
    server = client.get_server_metadata(**as_json(client))
    assert server["name"] == "convoy" and "binary_tensor_data" in server["extensions"]
    metadata = whole(client.get_model_metadata("lenet5", **as_json(client)))
    assert (metadata["name"], metadata["versions"]) == ("lenet5", ["1"])
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": ["-1", "1"]}]
    assert [(output["name"], output["datatype"]) for output in metadata["outputs"]] == [
        ("label", "BYTES"),
        ("score", "FP32"),
        ("index", "INT32"),
    ]
    config = client.get_model_config("lenet5", **as_json(client))
    config = whole(config.get("config", config))
    assert (config["max_batch_size"], config["input"][0]["dims"]) in (("64", ["1"]), (64, ["1"]))
    assert config["parameters"]["preparation"]["string_value"].startswith("A digit is found in")


def test_the_repository_can_be_read_and_not_changed(client: Any) -> None:
    index = client.get_model_repository_index(**as_json(client))
    (model,) = index if isinstance(index, list) else index["models"]
    assert (model["name"], model["version"], model["state"]) == ("lenet5", "1", "READY")
    for change in (client.load_model, client.unload_model):
        with pytest.raises(
            InferenceServerException, match="neither loaded nor unloaded"
        ) as refusal:
            change("lenet5")
        assert refusal.value.status() in ("404", "StatusCode.UNIMPLEMENTED")
    assert client.is_model_ready("lenet5")


def test_what_is_the_operators_is_refused_with_a_reason(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="shared memory is not supported"):
        client.register_system_shared_memory("images", "/images", 1 << 20)
    with pytest.raises(InferenceServerException, match="shared memory is not supported"):
        client.get_cuda_shared_memory_status()
    with pytest.raises(InferenceServerException, match="the operator's"):
        client.update_log_settings({"log_verbose_level": 1})
    with pytest.raises(InferenceServerException, match="the operator's"):
        client.get_trace_settings("lenet5")
