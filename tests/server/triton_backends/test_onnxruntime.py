"""The python-based `onnxruntime` backend in the real tritonserver, over Triton's own gRPC API."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import pytest_asyncio
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.aio import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from server.errors import TritonCannotStart
from server.runners.triton_local import TritonLocalRunner

pytestmark = pytest.mark.asyncio(loop_scope="module")

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backend")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def triton(repository: Path) -> AsyncIterator[InferenceServerClient]:
    server = TritonLocalRunner(repository, inference_threads=3)
    try:
        await server.start()
    except TritonCannotStart as error:
        await server.close()
        pytest.skip(f"needs the tritonserver wheel: {error}")
    client = InferenceServerClient(server.address)
    yield client
    await client.close()
    await server.close()


# ---------------------------------------------------------------- models


def write_model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[int | str]]],
    outputs: dict[str, tuple[int, Sequence[int | str]]],
    *,
    weights: dict[str, Array] | None = None,
    max_batch_size: int = 8,
    parameters: dict[str, str] | None = None,
) -> None:
    """Inputs and outputs by name, each with ONNX's type and shape, the batch's dimension "N"."""
    graph = helper.make_graph(
        nodes,
        path.name,
        [helper.make_tensor_value_info(name, *tensor) for name, tensor in inputs.items()],
        [helper.make_tensor_value_info(name, *tensor) for name, tensor in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (path / "1").mkdir(parents=True)
    onnx.save(model, path / "1" / "model.onnx")
    config = model_config_pb2.ModelConfig(backend="onnxruntime", max_batch_size=max_batch_size)
    for tensors, described in ((config.input, inputs), (config.output, outputs)):
        for name, (onnx_type, shape) in described.items():
            tensors.add(name=name, data_type=TRITON_TYPES[onnx_type], dims=dims(shape))
    config.instance_group.add(count=1)
    if max_batch_size:
        config.dynamic_batching.SetInParent()
    for name, value in (parameters or {}).items():
        config.parameters[name].string_value = value
    (path / "config.pbtxt").write_text(text_format.MessageToString(config))


TRITON_TYPES: dict[int, Any] = {
    TensorProto.UINT8: model_config_pb2.TYPE_UINT8,
    TensorProto.INT32: model_config_pb2.TYPE_INT32,
    TensorProto.INT64: model_config_pb2.TYPE_INT64,
    TensorProto.FLOAT16: model_config_pb2.TYPE_FP16,
    TensorProto.FLOAT: model_config_pb2.TYPE_FP32,
}


def dims(shape: Sequence[int | str]) -> list[int]:
    return [size for size in shape if isinstance(size, int)]


def write_classifier(path: Path, *, layers: int) -> None:
    """Multiplies grey images of 4x4 that many times by a 1024x1024 matrix."""
    rng = np.random.default_rng(0)
    weights: dict[str, Array] = {
        "spread": rng.normal(0, 0.01, (16, 1024)).astype(np.float32),
        "square": rng.normal(0, 0.03, (1024, 1024)).astype(np.float32),
        "gather": rng.normal(0, 0.1, (1024, 3)).astype(np.float32),
        "one": np.array([1], np.int64),
    }
    hidden = [f"hidden{index}" for index in range(layers + 1)]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "spread"], [hidden[0]]),
        *(
            helper.make_node("MatMul", [before, "square"], [after])
            for before, after in itertools.pairwise(hidden)
        ),
        helper.make_node("MatMul", [hidden[-1], "gather"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("Shape", ["image"], ["count"], start=0, end=1),
        helper.make_node("Cast", ["count"], ["value"], to=TensorProto.INT32),
        helper.make_node("Concat", ["count", "one"], ["shape"], axis=0),
        helper.make_node("Expand", ["value", "shape"], ["batch_size"]),
    ]
    write_model(
        path,
        nodes,
        {"image": (TensorProto.UINT8, ["N", 4, 4, 1])},
        {
            "probabilities": (TensorProto.FLOAT, ["N", 3]),
            "batch_size": (TensorProto.INT32, ["N", 1]),
        },
        weights=weights,
    )


def write_lookup(path: Path, **options: object) -> None:
    """Ten times a row of a table of three rows; the graph fails on any other row."""
    nodes = [
        helper.make_node("Gather", ["table", "row"], ["value"]),
        helper.make_node("Mul", ["value", "ten"], ["tenfold"]),
    ]
    write_model(
        path,
        nodes,
        {"row": (TensorProto.INT64, ["N", 1])},
        {"tenfold": (TensorProto.FLOAT, ["N", 1])},
        weights={"table": np.arange(3, dtype=np.float32), "ten": np.array(10, np.float32)},
        **options,  # type: ignore[arg-type]
    )


async def ask(client: InferenceServerClient, name: str, **inputs: Array) -> dict[str, Array]:
    tensors = []
    for key, array in inputs.items():
        tensor = InferInput(key, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    result = await client.infer(name, tensors, "1")
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


# ---------------------------------------------------------------- tests


async def test_answers_equal_onnx_runtimes_bit_by_bit(
    triton: InferenceServerClient, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    write_classifier(repository / "tiny.v1", layers=0)
    await triton.load_model("tiny.v1")
    session = ort.InferenceSession(repository / "tiny.v1" / "1" / "model.onnx")
    images = np.random.default_rng(1).integers(0, 256, (8, 4, 4, 1), np.uint8)
    for count in (1, 2, 3, 8):
        answer = await ask(triton, "tiny.v1", image=images[:count])
        expected, batch_size = session.run(None, {"image": images[:count]})
        np.testing.assert_array_equal(answer["probabilities"], expected, strict=True)
        np.testing.assert_array_equal(answer["batch_size"], batch_size, strict=True)
    # Otherwise numpy would complain there about tensors that are still alive.
    await asyncio.sleep(0.1)
    assert "PyCapsule" not in caplog.text


async def test_each_request_of_a_batch_gets_only_the_outputs_it_asked_for(
    triton: InferenceServerClient, repository: Path
) -> None:
    write_classifier(repository / "slow.v3", layers=200)
    await triton.load_model("slow.v3")
    images = np.random.default_rng(4).integers(0, 256, (6, 4, 4, 1), np.uint8)

    async def ask_for(number: int, *names: str) -> dict[str, Array]:
        image = InferInput("image", (1, 4, 4, 1), "UINT8")
        image.set_data_from_numpy(images[number : number + 1])
        outputs = [InferRequestedOutput(name) for name in names]
        result = await triton.infer("slow.v3", [image], "1", outputs)
        return {
            output.name: result.as_numpy(output.name) for output in result.get_response().outputs
        }

    wanted = [("probabilities",), ("batch_size",), ("batch_size", "probabilities")] * 2
    answers = await asyncio.gather(
        *(ask_for(number, *names) for number, names in enumerate(wanted))
    )
    assert [set(answer) for answer in answers] == [set(names) for names in wanted]
    assert max(int(answer["batch_size"][0, 0]) for answer in answers if "batch_size" in answer) > 1


async def executions_of(inferences: int, triton: InferenceServerClient, name: str) -> int:
    """Waits for Triton's count: it counts an execution a moment after the answer."""
    async with asyncio.timeout(10):
        while True:
            (model,) = (await triton.get_inference_statistics(name, "1")).model_stats
            if model.inference_count >= inferences:
                assert model.inference_count == inferences
                return int(model.execution_count)
            await asyncio.sleep(0.01)


async def test_concurrent_requests_are_batched_and_get_their_own_answers(
    triton: InferenceServerClient, repository: Path
) -> None:
    write_classifier(repository / "slow.v1", layers=200)
    await triton.load_model("slow.v1")
    images = np.random.default_rng(2).integers(0, 256, (16, 4, 4, 1), np.uint8)
    alone = [await ask(triton, "slow.v1", image=images[i : i + 1]) for i in range(16)]
    before = await executions_of(16, triton, "slow.v1")
    together = await asyncio.gather(
        *(ask(triton, "slow.v1", image=images[i : i + 1]) for i in range(16))
    )
    executions = await executions_of(32, triton, "slow.v1") - before
    assert executions <= 8
    told = [int(answer["batch_size"][0, 0]) for answer in together]
    assert sum(1 / size for size in told) == pytest.approx(executions)
    for one, same in zip(alone, together, strict=True):
        np.testing.assert_allclose(one["probabilities"], same["probabilities"], rtol=0, atol=1e-5)
    assert len({answer["probabilities"].tobytes() for answer in alone}) == 16


async def test_requests_of_several_images_are_split_where_they_were_joined(
    triton: InferenceServerClient, repository: Path
) -> None:
    write_classifier(repository / "slow.v2", layers=200)
    await triton.load_model("slow.v2")
    images = np.random.default_rng(3).integers(0, 256, (24, 4, 4, 1), np.uint8)
    requests = np.split(images, np.cumsum([1, 3, 2] * 4)[:-1])
    alone = [await ask(triton, "slow.v2", image=request) for request in requests]
    together = await asyncio.gather(*(ask(triton, "slow.v2", image=image) for image in requests))
    for request, one, same in zip(requests, alone, together, strict=True):
        np.testing.assert_allclose(one["probabilities"], same["probabilities"], rtol=0, atol=1e-5)
        assert len(same["batch_size"]) == len(request)
    sizes = [int(answer["batch_size"][0, 0]) for answer in together]
    assert any(size > len(request) for size, request in zip(sizes, requests, strict=True))


async def test_a_request_that_fails_does_not_fail_its_neighbours(
    triton: InferenceServerClient, repository: Path
) -> None:
    write_lookup(repository / "lookup.v2")
    await triton.load_model("lookup.v2")
    rows = [np.array([[99 if index % 10 == 5 else index % 3]]) for index in range(60)]
    answers = await asyncio.gather(
        *(ask(triton, "lookup.v2", row=row) for row in rows), return_exceptions=True
    )
    for row, answer in zip(rows, answers, strict=True):
        if row[0, 0] == 99:
            assert isinstance(answer, InferenceServerException)
            assert answer.status() == "StatusCode.INTERNAL"
            assert "out of data bounds" in answer.message()
        else:
            assert isinstance(answer, dict)
            assert answer["tenfold"] == row[0, 0] * 10


async def test_other_types_and_several_inputs_are_supported(
    triton: InferenceServerClient, repository: Path
) -> None:
    nodes = [
        helper.make_node("Cast", ["left"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "right"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["half"], to=TensorProto.FLOAT16),
    ]
    write_model(
        repository / "sum.v1",
        nodes,
        {"left": (TensorProto.FLOAT16, ["N", 2]), "right": (TensorProto.FLOAT, ["N", 2])},
        {"sum": (TensorProto.FLOAT, ["N", 2]), "half": (TensorProto.FLOAT16, ["N", 2])},
    )
    await triton.load_model("sum.v1")
    left, right = np.array([[1, 2]], np.float16), np.array([[0.5, 0.25]], np.float32)
    answer = await ask(triton, "sum.v1", left=left, right=right)
    np.testing.assert_array_equal(answer["sum"], [[1.5, 2.25]])
    np.testing.assert_array_equal(answer["half"], np.array([[1.5, 2.25]], np.float16), strict=True)


async def test_a_model_without_a_batch_dimension_runs_each_request_alone(
    triton: InferenceServerClient, repository: Path
) -> None:
    write_model(
        repository / "single.v1",
        [helper.make_node("Neg", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, [3])},
        {"y": (TensorProto.FLOAT, [3])},
        max_batch_size=0,
    )
    await triton.load_model("single.v1")
    xs = [np.full(3, index, np.float32) for index in range(8)]
    answers = await asyncio.gather(*(ask(triton, "single.v1", x=x) for x in xs))
    for x, answer in zip(xs, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], -x)


async def test_a_config_that_names_another_output_does_not_load(
    triton: InferenceServerClient, repository: Path
) -> None:
    write_lookup(repository / "lookup.v3")
    config_path = repository / "lookup.v3" / "config.pbtxt"
    config_path.write_text(config_path.read_text().replace('"tenfold"', '"twofold"'))
    with pytest.raises(
        InferenceServerException, match="has no output twofold; it has tenfold"
    ) as raised:
        await triton.load_model("lookup.v3")
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def stub_threads(name: str) -> int:
    """The number of threads of the process that runs a version."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"/{name}/1/model.onnx" in (path / "cmdline").read_text():
                return len(list((path / "task").iterdir()))
        except OSError:
            continue
    raise AssertionError(f"nothing runs {name}")


async def test_the_config_or_else_the_setting_is_the_number_of_threads(
    triton: InferenceServerClient, repository: Path
) -> None:
    threads = {}
    for count in ("1", "4", "0"):
        name = f"threads{count}.v1"
        write_lookup(repository / name, parameters={"intra_op_thread_count": count})
        await triton.load_model(name)
        threads[count] = stub_threads(name)
    assert threads["4"] - threads["1"] == 3
    assert threads["0"] - threads["1"] == 2, "as the runner was told"
