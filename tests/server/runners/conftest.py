"""A real tritonserver, and versions small enough to be made by the dozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import json_format, text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2

from convoy.v1 import classifier_pb2 as pb
from server.runners.base import FACTS_KEY

FACTS = pb.Model(labels=[pb.Label(name=name) for name in ("ant", "bee", "cow")])


MakeVersion = Callable[[Path], None]


@pytest.fixture(scope="session")
def make_version() -> MakeVersion:
    """Writes a version into a folder: grey images of 4x4 in, three classes out."""

    def write(path: Path) -> None:
        (path / "1").mkdir(parents=True)
        onnx.save(tiny_classifier(), path / "1" / "model.onnx")
        (path / "config.pbtxt").write_text(text_format.MessageToString(tiny_config()))
        (path / "labels.txt").write_text("ant\nbee\ncow\n")

    return write


def tiny_classifier() -> onnx.ModelProto:
    weights = np.random.default_rng(0).normal(0, 0.01, (16, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("Shape", ["image"], ["count"], start=0, end=1),
        helper.make_node("Cast", ["count"], ["value"], to=TensorProto.INT32),
        helper.make_node("Concat", ["count", "one"], ["shape"], axis=0),
        helper.make_node("Expand", ["value", "shape"], ["batch_size"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 4, 4, 1])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("batch_size", TensorProto.INT32, ["N", 1]),
        ],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def tiny_config() -> model_config_pb2.ModelConfig:
    """As the build writes it."""
    config = model_config_pb2.ModelConfig(backend="onnxruntime", max_batch_size=8)
    config.input.add(name="image", data_type=model_config_pb2.TYPE_UINT8, dims=[4, 4, 1])
    config.output.add(
        name="probabilities",
        data_type=model_config_pb2.TYPE_FP32,
        dims=[3],
        label_filename="labels.txt",
    )
    config.output.add(name="batch_size", data_type=model_config_pb2.TYPE_INT32, dims=[1])
    config.instance_group.add(count=1)
    config.dynamic_batching.SetInParent()
    config.parameters[FACTS_KEY].string_value = json_format.MessageToJson(FACTS)
    return config
