"""Engines, by the real TensorRT-RTX, which needs no GPU; plans where there is one (`-m gpu`)."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.catalog import CATALOG, PROBABILITIES, Network, find
from export.checkpoints.load import load
from export.conversion.engine_header import EngineHeader, read_header
from export.conversion.tensorrt_library import explain_missing_plan_support, target_key
from export.conversion.tensorrt_runtime import engine_outputs
from export.conversion.to_int8 import to_int8
from export.conversion.to_onnx import ServedNetwork, to_onnx
from export.conversion.to_tensorrt import Profile, build_engine
from export.errors import EngineError
from export.proof.parity import onnx_answer
from export.samples.images import CALIBRATION_SEED, PROOF_SEED, samples
from tests.export.recorder import Recorder

ROOT = Path(__file__).parents[3]
PRECISIONS = ("fp32", "fp16", "int8")
# For `make test`; `make test-slow` builds the others.
SMALL = ("lenet5", "resnet20_digits")
# What an engine has beside the weights: 22 MB for resnet152 in int8, 2 MB or less in fp32 and fp16.
MAX_KERNELS_BYTES = 30_000_000
PROFILE = Profile(min_batch=1, opt_batch=4, max_batch=8)


@pytest.fixture(scope="session")
def lenet5(shipped_lenet5: Path) -> Path:
    return shipped_lenet5 / "1" / "model.onnx"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the engine, alone in its folder."""
    folder = tmp_path / "engine"
    folder.mkdir()
    return folder / "model.engine"


def left_in(path: Path) -> list[str]:
    return [file.name for file in path.parent.iterdir()]


# ---------------------------------------------------------------- every network, every precision


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in SMALL else pytest.mark.slow) for name in CATALOG
    ],
)
def graphs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """A network's ONNX by its precision, with random weights."""
    network = find(request.param)
    folder = tmp_path_factory.mktemp(network.name)
    yield exported(network, folder)
    shutil.rmtree(folder)  # a VGG's are 1 GB


def exported(network: Network, folder: Path) -> dict[str, Path]:
    paths = {precision: folder / f"{precision}.onnx" for precision in PRECISIONS}
    module, classes = load(network, "random").network, len(network.labels())
    for precision in ("fp32", "fp16"):
        servable = ServedNetwork(module, network.mean, network.std, precision)
        to_onnx(servable, network.size, classes, paths[precision])
    images = samples(network, 4, CALIBRATION_SEED).pixels
    to_int8(paths["fp32"], paths["int8"], images, "tensorrt")
    return paths


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_network_builds_in_every_precision(
    precision: str, graphs: dict[str, Path], path: Path
) -> None:
    engine = build_engine(graphs[precision], path, PROFILE, "tensorrt_rtx")
    assert read_header(path) == EngineHeader("tensorrt_rtx", engine.version)
    # The weights of the graph, as wide as they are there.
    assert 0 < path.stat().st_size - graphs[precision].stat().st_size < MAX_KERNELS_BYTES
    path.unlink()


# ---------------------------------------------------------------- what is written


def test_an_engine_says_what_it_is(lenet5: Path, path: Path) -> None:
    engine = build_engine(lenet5, path, PROFILE, "tensorrt_rtx")
    assert engine.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (engine.library, engine.version) == ("tensorrt_rtx", read_header(path).version)
    assert (engine.min_batch, engine.opt_batch, engine.max_batch) == (1, 4, 8)
    # Built ahead of time, for whichever GPU.
    assert (engine.cuda, engine.gpu, engine.compute_capability) == ("", "", "")
    assert target_key("tensorrt_rtx") == f"tensorrt_rtx {engine.version}"
    assert left_in(path) == ["model.engine"]


def test_a_better_engine_takes_the_place_of_the_last(lenet5: Path, path: Path) -> None:
    path.write_bytes(b"the last")
    build_engine(lenet5, path, PROFILE, "tensorrt_rtx", optimization_level=5)
    assert read_header(path).kind == "tensorrt_rtx"
    assert left_in(path) == ["model.engine"]


def test_a_folder_that_cannot_be_made_is_named(lenet5: Path, path: Path) -> None:
    path.write_bytes(b"no folder")
    with pytest.raises(EngineError, match=r"model\.engine/x cannot be written: File exists"):
        build_engine(lenet5, path / "x", PROFILE, "tensorrt_rtx")


def test_an_engine_that_cannot_be_written_leaves_nothing_half_done(
    lenet5: Path, path: Path
) -> None:
    path.mkdir()
    with pytest.raises(EngineError, match=r"model\.engine cannot be written: Is a directory"):
        build_engine(lenet5, path, PROFILE, "tensorrt_rtx")
    assert left_in(path) == ["model.engine"]


# ---------------------------------------------------------------- what fails, and why


def graph(folder: Path, *nodes: onnx.NodeProto) -> Path:
    """From `image`, a uint8 N×4×4×3, to what the nodes give."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 4, 4, 3])
    types = {"probabilities": TensorProto.FLOAT, "batch_size": TensorProto.INT32}
    given = types.keys() & {name for node in nodes for name in node.output}
    outputs = [helper.make_tensor_value_info(name, types[name], None) for name in sorted(given)]
    one_image = numpy_helper.from_array(np.array([1, 48]), "one_image")
    made = helper.make_graph(nodes, "graph", [image], outputs, [one_image])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def test_a_node_that_tensorrt_cannot_read_is_named(tmp_path: Path, path: Path) -> None:
    onnx_path = graph(
        tmp_path,
        helper.make_node("Transpose", ["image"], ["turned"], name="turn", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["probabilities"], to=TensorProto.FLOAT),
    )
    with pytest.raises(EngineError) as failed:
        build_engine(onnx_path, path, PROFILE, "tensorrt_rtx")
    assert str(failed.value).startswith(
        f"TensorRT cannot read {onnx_path}: node turn (Transpose), turn: first input has type "
        "UInt8 but must have type"
    )
    assert "/_src" not in str(failed.value) and "cuda" not in str(failed.value)
    assert left_in(path) == []


def test_mixed_precisions_are_refused(tmp_path: Path, path: Path) -> None:
    """Of a network that were not strongly typed, TensorRT would choose the precision itself."""
    onnx_path = graph(
        tmp_path,
        helper.make_node("Cast", ["image"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Add", ["single", "half"], ["probabilities"], name="mix"),
    )
    with pytest.raises(EngineError, match=r"node mix \(Add\), .* types Float and Half"):
        build_engine(onnx_path, path, PROFILE, "tensorrt_rtx")


def unbuildable(folder: Path) -> Path:
    """Can be read, and reshapes to one image, whatever the batch."""
    return graph(
        folder,
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("Reshape", ["pixels", "one_image"], ["fixed"], name="for_one_image"),
        helper.make_node("Add", ["flat", "fixed"], ["probabilities"]),
        helper.make_node("Cast", ["flat"], ["batch_size"], to=TensorProto.INT32),
    )


def test_a_failed_build_has_its_reason(tmp_path: Path, path: Path) -> None:
    onnx_path = unbuildable(tmp_path)
    with pytest.raises(EngineError) as failed:
        build_engine(onnx_path, path, PROFILE, "tensorrt_rtx")
    assert str(failed.value).startswith(f"TensorRT cannot build {onnx_path}: ")
    assert str(failed.value).endswith("pixels reshape would change volume 192 to 48.")
    assert left_in(path) == []


def test_a_truncated_graph_is_refused(lenet5: Path, tmp_path: Path, path: Path) -> None:
    onnx_path = tmp_path / "model.onnx"
    onnx_path.write_bytes(lenet5.read_bytes()[:100_000])
    with pytest.raises(EngineError, match=r"cannot read .*model\.onnx: Failed to parse"):
        build_engine(onnx_path, path, PROFILE, "tensorrt_rtx")
    assert left_in(path) == []


@pytest.mark.parametrize("content", [b"", b"hello world" * 10])
def test_a_file_that_tensorrt_takes_for_an_empty_graph_is_refused(
    content: bytes, tmp_path: Path, path: Path
) -> None:
    onnx_path = tmp_path / "model.onnx"
    onnx_path.write_bytes(content)
    with pytest.raises(EngineError, match=r"model\.onnx has no inputs and outputs, .* image UINT8"):
        build_engine(onnx_path, path, PROFILE, "tensorrt_rtx")


@pytest.mark.parametrize(
    ("old", "new"),
    [("image", "photo"), ("probabilities", "logits"), ("batch_size", "count")],
)
def test_another_name_is_refused(
    old: str, new: str, lenet5: Path, tmp_path: Path, path: Path
) -> None:
    """A profile for an input that is not there would be accepted without a word."""
    model = onnx.load(lenet5)
    for names in chain.from_iterable((node.input, node.output) for node in model.graph.node):
        names[:] = [new if name == old else name for name in names]
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(EngineError, match=rf"model\.onnx has .*{new} .* but serving needs image"):
        build_engine(tmp_path / "model.onnx", path, PROFILE, "tensorrt_rtx")
    assert left_in(path) == []


def test_a_fixed_batch_is_refused(lenet5: Path, tmp_path: Path, path: Path) -> None:
    model = onnx.load(lenet5)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(EngineError, match=r"has image UINT8 fixed×fixed×fixed×fixed, "):
        build_engine(tmp_path / "model.onnx", path, PROFILE, "tensorrt_rtx")


@pytest.mark.parametrize("batches", [(2, 1, 8), (1, 9, 8), (0, 1, 8), (4, 4, 2)])
def test_batches_that_contradict_each_other_are_refused(batches: tuple[int, int, int]) -> None:
    with pytest.raises(EngineError, match="choose 1 ≤ minimum ≤ optimum ≤ maximum"):
        Profile(*batches)


@pytest.mark.parametrize("level", [-1, 6])
def test_a_level_that_there_is_not_is_refused(level: int, lenet5: Path, path: Path) -> None:
    with pytest.raises(EngineError, match=f"no optimisation level {level}: choose 0"):
        build_engine(lenet5, path, PROFILE, "tensorrt_rtx", optimization_level=level)


def test_every_failed_build_has_its_own_reason(lenet5: Path, tmp_path: Path, path: Path) -> None:
    """The exception keeps the first one's builder alive, and its logger with it."""
    failures = []
    for most in (8, 7):
        with pytest.raises(EngineError, match=f"change volume {48 * most} to 48") as failed:
            profile = Profile(1, most, most)
            build_engine(unbuildable(tmp_path), path, profile, "tensorrt_rtx")
        failures.append(failed)
    build_engine(lenet5, path, PROFILE, "tensorrt_rtx")


# ---------------------------------------------------------------- how it goes on, and how it ends


def test_progress_goes_through_every_phase_to_its_end(lenet5: Path, path: Path) -> None:
    recorder = Recorder()
    build_engine(lenet5, path, PROFILE, "tensorrt_rtx", reporter=recorder)
    (whole, begun, steps), *_, last = recorder.reports
    assert begun == 0 and last == (whole, steps, steps)
    assert all(total is not None and 0 <= done <= total for _, done, total in recorder.reports)
    phases = {phase for phase, _, _ in recorder.reports}
    assert len(phases) > 5
    for phase in phases - {whole}:  # each within the whole
        assert [done == total for name, done, total in recorder.reports if name == phase][-1]


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Also where the tests run in the background of a shell, which ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_ends_a_build_and_leaves_nothing(lenet5: Path, path: Path) -> None:
    class Interrupter(Recorder):
        def progress(self, task: str, completed: int, total: int | None, unit: str = "") -> None:
            if len(self.reports) == 20:  # as a terminal does it: the main thread gets the signal
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            super().progress(task, completed, total, unit)
            time.sleep(0.01)  # a build of two seconds

    interrupter = Interrupter()
    with pytest.raises(KeyboardInterrupt):
        build_engine(lenet5, path, PROFILE, "tensorrt_rtx", reporter=interrupter)
    phases = {phase for phase, _, _ in interrupter.reports}
    assert "Timing graph nodes" not in phases, "the build went on"
    assert left_in(path) == []
    build_engine(lenet5, path, PROFILE, "tensorrt_rtx")  # as if nothing had been


# ---------------------------------------------------------------- where no plan can be built


def test_nothing_of_tensorrt_is_imported_before_it_is_needed() -> None:
    program = (
        "import sys, export.conversion.tensorrt_runtime, export.conversion.to_tensorrt\n"
        "print('tensorrt' in sys.modules, 'tensorrt_rtx' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    stdout = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert stdout == "False False\n"


def tensorrt_is(monkeypatch: pytest.MonkeyPatch, folder: Path, content: str) -> None:
    """What `import tensorrt` finds: a machine that has it cannot show how one without it fails."""
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(folder)
    (folder / "tensorrt.py").write_text(content)


NO_TENSORRT = "raise ModuleNotFoundError(name='tensorrt')"


def test_a_plan_is_refused_in_a_sentence_that_has_the_remedy(
    monkeypatch: pytest.MonkeyPatch, lenet5: Path, tmp_path: Path, path: Path
) -> None:
    tensorrt_is(monkeypatch, tmp_path, NO_TENSORRT)
    assert explain_missing_plan_support() == "TensorRT is not installed."
    remedy = r"TensorRT is not installed\. .* container of the same release .* docs/tensorrt\.md"
    with pytest.raises(EngineError, match=remedy):
        build_engine(lenet5, path, PROFILE, "tensorrt")
    with pytest.raises(EngineError, match=remedy):
        target_key("tensorrt")
    assert (ROOT / "docs" / "tensorrt.md").is_file()
    assert left_in(path) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("__version__ = '10.9.0.34'", "TensorRT 10.9.0.34 is older than 10.12."),
        ("__version__ = '8.6.1.post1'", "TensorRT 8.6.1.post1 is older than 10.12."),
        (
            "raise ImportError('libnvinfer.so.10: cannot open shared object file')",
            "TensorRT cannot be loaded: libnvinfer.so.10: cannot open shared object file.",
        ),
        # What the bindings of 10.12 and of 11.4 do where they find no GPU.
        (
            "from tensorrt_rtx import *\n"
            "__version__ = '11.4.0.106'\n"
            "def Builder(log):\n"
            "    log.log(ILogger.ERROR, 'CUDA initialization failure with error: 35')\n"
            "    raise TypeError('pybind11::init(): factory function returned nullptr')\n",
            "TensorRT 11.4.0.106 found no usable GPU: CUDA initialization failure with error: 35.",
        ),
    ],
)
def test_no_plan_has_a_reason(
    content: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tensorrt_is(monkeypatch, tmp_path, content)
    assert explain_missing_plan_support() == reason


# ---------------------------------------------------------------- plans, on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_plan_answers_as_its_graph_does(precision: str, tmp_path: Path, path: Path) -> None:
    network = find("resnet50")
    onnx_path, cache_path = exported(network, tmp_path)[precision], tmp_path / "timing.cache"
    assert explain_missing_plan_support() is None
    engine = build_engine(onnx_path, path, PROFILE, "tensorrt", timing_cache_path=cache_path)
    assert read_header(path) == EngineHeader("tensorrt", engine.version)
    assert engine.gpu and engine.cuda and re.fullmatch(r"\d+\.\d", engine.compute_capability)
    assert cache_path.stat().st_size > 0
    images = samples(network, PROFILE.max_batch, PROOF_SEED).pixels
    answer = engine_outputs(path)(images)[PROBABILITIES]
    difference = np.abs(answer - onnx_answer(onnx_path)(images)).max()
    assert difference <= network.tolerance("engine", is_random=True)


@pytest.mark.gpu
def test_a_timing_cache_of_another_machine_is_begun_anew(
    lenet5: Path, tmp_path: Path, path: Path
) -> None:
    cache_path = tmp_path / "timing.cache"
    cache_path.write_bytes(b"no cache")
    build_engine(lenet5, path, PROFILE, "tensorrt", timing_cache_path=cache_path)
    assert cache_path.read_bytes() != b"no cache"


@pytest.mark.gpu
def test_what_is_no_plan_is_not_run(path: Path) -> None:
    path.write_bytes(b"ftrt" + bytes(100))
    with pytest.raises(EngineError, match=r"TensorRT cannot load .*model\.engine"):
        engine_outputs(path)
