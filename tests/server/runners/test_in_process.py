"""What is the in-process runner's own: it takes what waits, and honours config.pbtxt.

Requests that are made in one turn of the event loop all wait before the first can be answered, so
how they are batched does not depend on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from server.errors import DeadlineExceeded
from server.runners.base import Inference, LoadFailed
from server.runners.in_process import InProcessRunner

MakeVersion = Callable[[Path], None]

NAME = "tiny.v1"
IMAGE = np.zeros((1, 4, 4, 1), np.uint8)


@pytest_asyncio.fixture
async def runner(tmp_path: Path, make_version: MakeVersion) -> AsyncIterator[InProcessRunner]:
    make_version(tmp_path / NAME)
    runner = InProcessRunner(tmp_path)
    yield runner
    await runner.close()


def edit_config(repository: Path, change: Callable[[model_config_pb2.ModelConfig], None]) -> None:
    path = repository / NAME / "config.pbtxt"
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    change(config)
    path.write_text(text_format.MessageToString(config))


async def batch_sizes(runner: InProcessRunner, requests: int, images: int = 1) -> list[int]:
    """Of so many requests at once, in the order in which they were made."""
    image = np.repeat(IMAGE, images, axis=0)
    answers = await asyncio.gather(*(runner.infer(NAME, image) for _ in range(requests)))
    return [answer.batch_size for answer in answers]


async def one_that_is_computed(runner: InProcessRunner) -> asyncio.Task[Inference]:
    request = asyncio.create_task(runner.infer(NAME, IMAGE))
    for _ in range(3):  # submitted, its batch taken, and handed to a thread
        await asyncio.sleep(0)
    return request


async def test_a_free_instance_takes_what_waits(runner: InProcessRunner) -> None:
    await runner.load(NAME)
    assert await batch_sizes(runner, requests=20) == 16 * [8] + 4 * [4]


async def test_what_comes_while_an_instance_is_busy_waits_for_it(runner: InProcessRunner) -> None:
    await runner.load(NAME)
    first = await one_that_is_computed(runner)
    assert await batch_sizes(runner, requests=3) == 3 * [3]
    assert (await first).batch_size == 1


async def test_requests_of_several_images_are_never_split(runner: InProcessRunner) -> None:
    await runner.load(NAME)
    assert await batch_sizes(runner, requests=5, images=3) == [6, 6, 6, 6, 3]


async def test_without_dynamic_batching_each_request_goes_alone(
    runner: InProcessRunner, tmp_path: Path
) -> None:
    edit_config(tmp_path, lambda config: config.ClearField("dynamic_batching"))
    await runner.load(NAME)
    assert Counter(await batch_sizes(runner, requests=5)) == {1: 5}


async def test_each_instance_computes_a_batch_of_its_own(
    runner: InProcessRunner, tmp_path: Path
) -> None:
    def two_instances(config: model_config_pb2.ModelConfig) -> None:
        config.instance_group[0].count = 2

    edit_config(tmp_path, two_instances)
    await runner.load(NAME)
    both = asyncio.gather(*(runner.infer(NAME, np.repeat(IMAGE, 5, axis=0)) for _ in range(2)))
    for _ in range(3):
        await asyncio.sleep(0)
    # With one instance it would go along with the second five.
    assert await batch_sizes(runner, requests=1, images=3) == [3]
    assert [answer.batch_size for answer in await both] == [5, 5]


async def test_what_nobody_awaits_any_more_is_not_computed(runner: InProcessRunner) -> None:
    await runner.load(NAME)
    first = await one_that_is_computed(runner)
    waiting = [asyncio.create_task(runner.infer(NAME, IMAGE)) for _ in range(5)]
    await asyncio.sleep(0)
    requests = [first, *waiting]
    for request in requests[1:4]:
        request.cancel()
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert [getattr(answer, "batch_size", "cancelled") for answer in answers] == [
        1,
        *3 * ["cancelled"],
        2,
        2,
    ]


async def test_a_deadline_takes_a_request_out_of_the_queue(runner: InProcessRunner) -> None:
    await runner.load(NAME)
    first = asyncio.create_task(runner.infer(NAME, IMAGE))
    with pytest.raises(DeadlineExceeded):
        await runner.infer(NAME, IMAGE, timeout_s=0)
    assert (await first).batch_size == 1


async def test_queue_and_compute_times_are_told(runner: InProcessRunner) -> None:
    await runner.load(NAME)
    answer = await runner.infer(NAME, IMAGE)
    assert answer.queue_us is not None and answer.compute_us is not None


async def test_a_graph_with_another_contract_is_not_loaded(
    runner: InProcessRunner, tmp_path: Path
) -> None:
    import onnx

    path = tmp_path / NAME / "1" / "model.onnx"
    graph = onnx.load(path)
    graph.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(graph, path)
    with pytest.raises(LoadFailed, match="expected the input image, of uint8"):
        await runner.load(NAME)


async def test_a_version_has_threads_only_while_it_is_used(
    tmp_path: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version(tmp_path / NAME)
    runner = InProcessRunner(tmp_path, inference_threads=4)
    await runner.load(NAME)
    idle = (await runner.infer(NAME, IMAGE)).probabilities
    threads = await count_threads(runner)

    monkeypatch.setattr("server.runners.elastic_model.BUSY_CPU_S", 0.0)
    assert await count_threads(runner) == threads + 3
    np.testing.assert_array_equal((await runner.infer(NAME, IMAGE)).probabilities, idle)

    monkeypatch.setattr("server.runners.elastic_model.IDLE_S", 0.0)
    assert await count_threads(runner) == threads
    np.testing.assert_array_equal((await runner.infer(NAME, IMAGE)).probabilities, idle)
    await runner.close()


async def count_threads(runner: InProcessRunner) -> int:
    """After a look at the repository, by which the model gets its threads, or loses them."""
    await runner.index()
    if reopening := runner._models[NAME]._reopening:
        await reopening
    del reopening  # which would keep the session that is counted
    await asyncio.sleep(0)
    gc.collect()
    return native_threads()


def native_threads() -> int:
    """Python's own come and go; ONNX Runtime's are not in its list."""
    return len(list(Path("/proc/self/task").iterdir())) - threading.active_count()


@pytest.mark.parametrize("change", [Path.unlink, Path.touch])
async def test_a_version_whose_files_have_changed_is_served_as_it_was_proven(
    tmp_path: Path,
    make_version: MakeVersion,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
) -> None:
    make_version(tmp_path / NAME)
    runner = InProcessRunner(tmp_path, inference_threads=4)
    await runner.load(NAME)
    change(tmp_path / NAME / "1" / "model.onnx")
    monkeypatch.setattr("server.runners.elastic_model.BUSY_CPU_S", 0.0)
    await runner.index()
    reopening = runner._models[NAME]._reopening
    assert reopening
    await asyncio.wait([reopening])
    assert reopening.exception()
    assert (await runner.infer(NAME, IMAGE)).batch_size == 1
    await runner.close()


@pytest.mark.parametrize("threads", ["many", "-1"])
async def test_a_thread_count_that_is_none_is_not_loaded(
    runner: InProcessRunner, tmp_path: Path, threads: str
) -> None:
    def set_threads(config: model_config_pb2.ModelConfig) -> None:
        config.parameters["intra_op_thread_count"].string_value = threads

    edit_config(tmp_path, set_threads)
    with pytest.raises(LoadFailed, match=f"intra_op_thread_count is '{threads}'"):
        await runner.load(NAME)
