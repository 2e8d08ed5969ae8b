"""Metadata of the server and its models, as the JSON of this protocol.

The gRPC messages have the same fields, so that the servicer parses them from here.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import version as version_of
from typing import Any

from convoy.preparation import describe_preparation
from convoy.v1 import classifier_pb2 as pb
from server.errors import ServingError
from server.open_inference.model_statistics import Statistics
from server.open_inference.tensors import INPUT, OUTPUTS
from server.versions.pool import Pool

JSON = dict[str, Any]

PLATFORM = "convoy"
STATES = {pb.STATE_READY: "READY", pb.STATE_LOADING: "LOADING"}
NO_CONTROL = "models are published in the repository, neither loaded nor unloaded by clients"
NO_SHARED_MEMORY = "shared memory is not supported: send the images in the request"
NO_SETTINGS = "traces and logs are the operator's, not set by clients"
CONFIG_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT32": "TYPE_INT32"}


def server_metadata() -> JSON:
    return {
        "name": "convoy",
        "version": version_of("convoy-serving"),
        "extensions": ["binary_tensor_data", "model_configuration", "parameters", "statistics"],
    }


def is_model_ready(pool: Pool, model: str, version: str) -> bool:
    with contextlib.suppress(ServingError):
        return bool(pool.resolve(model, version))
    return False


def model_metadata(pool: Pool, model: str, version: str) -> JSON:
    """
    Raises:
        ServingError: there is no such model or version, or it is not ready.
    """
    servable = pool.resolve(model, version)
    outputs = [
        {"name": name, "datatype": datatype, "shape": [-1, -1]}
        for name, datatype in OUTPUTS.items()
    ]
    return {
        "name": servable.model,
        "versions": [version] if version else ready_versions(pool, model),
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1, 1]}],
        "outputs": outputs,
    }


def model_config(pool: Pool, model: str, version: str, max_batch_size: int) -> JSON:
    """Triton's words for the same; the first dimension, the batch's, is left out there.

    Raises:
        ServingError: there is no such model or version, or it is not ready.
    """
    servable = pool.resolve(model, version)
    outputs = [
        {"name": name, "data_type": CONFIG_TYPES[datatype], "dims": [-1]}
        for name, datatype in OUTPUTS.items()
    ]
    return {
        "name": servable.model,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": max_batch_size,
        "input": [{"name": INPUT, "data_type": "TYPE_STRING", "dims": [1]}],
        "output": outputs,
        "parameters": {
            "preparation": {"string_value": describe_preparation(servable.loaded.facts)}
        },
    }


async def model_statistics(
    pool: Pool, statistics: Statistics, model: str = "", version: str = ""
) -> JSON:
    """The counts of one model, or of all that are ready.

    Raises:
        ServingError: there is no such model or version, or it is not ready.
    """
    if model:
        pool.resolve(model, version)
    ready = [
        (described.name, described.version)
        for described in pool.list()
        if described.state == pb.STATE_READY
        and model in ("", described.name)
        and version in ("", described.version)
    ]
    return {"model_stats": await statistics.read(ready)}


def repository_index(pool: Pool, *, only_ready: bool) -> list[JSON]:
    return [
        {
            "name": model.name,
            "version": model.version,
            "state": STATES.get(model.state, "UNAVAILABLE"),
            "reason": model.state_reason,
        }
        for model in pool.list()
        if model.state == pb.STATE_READY or not only_ready
    ]


def ready_versions(pool: Pool, model: str) -> list[str]:
    return [
        described.version
        for described in pool.list()
        if described.name == model and described.state == pb.STATE_READY
    ]
