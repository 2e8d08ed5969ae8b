"""What is no image classifier is refused by what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.adoption.classifier import Classifier, read_classifier
from export.adoption.onnx_file import read_onnx_file
from export.errors import AdoptionError

Shape = list[int | str]
FLOAT, UINT8, INT8, INT64 = (
    TensorProto.FLOAT,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.INT64,
)
IMAGE: Shape = ["n", 3, 8, 8]
MEANS = helper.make_node("GlobalAveragePool", ["x"], ["pooled"])
CLASSES = [MEANS, helper.make_node("Flatten", ["pooled"], ["y"])]  # three


def write(
    folder: Path,
    nodes: list[NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape | None]],
    **constants: Any,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *of) for name, of in inputs.items()],
        [helper.make_tensor_value_info(name, *of) for name, of in outputs.items()],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    domains = {node.domain for node in nodes} - {""}
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(name, 1) for name in domains)]
    path = folder / "given.onnx"
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def read(folder: Path, *graph: Any, crop: int = 0, **constants: Any) -> Classifier:
    return read_classifier(read_onnx_file(write(folder, *graph, **constants)), crop)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def one(element_type: int, shape: Shape) -> dict[str, tuple[int, Shape]]:
    return {"x": (element_type, shape)}


SCORES: dict[str, tuple[int, Shape | None]] = {"y": (FLOAT, ["n", 3])}
LAST = node("Identity", "x", "y")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (one(INT64, ["n", 128]), "its input are numbers of tokens .x int64 n×128.: a text model"),
        (one(TensorProto.STRING, ["n"]), "its input is text"),
        (one(FLOAT, ["n", 40]), "its input is a table of features .x float32 n×40."),
        (one(FLOAT, ["n", 50, 80]), "its input is a sequence .x float32 n×50×80."),
        (one(FLOAT, ["n", 3, 16, 8, 8]), "its input is a video or a volume"),
        (one(FLOAT, ["n", "c", 8, 8]), "expected 3 channels, red, green and blue, on a fixed axis"),
        (one(FLOAT, ["n", 1, 8, 8]), "its input is x float32 n×1×8×8; expected 3 channels"),
        (one(FLOAT, ["n", 3, 8, 3]), "on a fixed axis"),
        (one(FLOAT, ["n", 3, 8, 9]), "pictures are prepared as squares"),
        (one(FLOAT, ["n", 3, "h", "w"]), "takes pictures of any size: say with --crop N"),
        (one(INT8, IMAGE), "its input has the type int8.*QDQ"),
        (one(INT64, IMAGE), "its input has the type int64"),
        ({"x": (FLOAT, IMAGE), "im_shape": (FLOAT, ["n", 2])}, "it has 2 inputs .x float32 n×3"),
    ],
)
def test_what_takes_no_picture(
    inputs: dict[str, tuple[int, Shape]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(AdoptionError, match=message):
        read(tmp_path, [LAST], inputs, {"y": (FLOAT, None)})


def test_a_detector_is_named_and_the_command_that_cuts_scores_off_works(tmp_path: Path) -> None:
    outputs: dict[str, tuple[int, Shape | None]] = {
        "boxes": (FLOAT, ["n", 100, 4]),
        "y": (FLOAT, ["n", 3]),
    }
    boxes = node("Expand", "x shape", "boxes")
    graph = ([*CLASSES, boxes], one(FLOAT, IMAGE), outputs)
    with pytest.raises(AdoptionError, match=r"2 outputs \(boxes float32 .*as detectors") as e:
        read(tmp_path, *graph, shape=[1, 3, 8, 8])
    program = str(e.value).split('python -c "')[1].rstrip('"')
    # As a shell would run it, beside the file.
    program = program.replace("'given.onnx'", repr(str(tmp_path / "given.onnx")))
    exec(program.replace("'classifier.onnx'", repr(str(tmp_path / "classifier.onnx"))))
    assert read_classifier(read_onnx_file(tmp_path / "classifier.onnx")).classes == 3


@pytest.mark.parametrize(
    ("nodes", "kind", "message"),
    [
        ([LAST], FLOAT, "its output is y float32 3×8×8: it scores places in a picture"),
        ([*CLASSES[:1], node("ArgMax", "pooled", "y", axis=1)], INT64, "no scores.*ArgMax"),
        ([node("Reshape", "x rows", "y")], FLOAT, "y float32 3×64; expected a score per class"),
    ],
)
def test_what_gives_no_score_per_class(
    nodes: list[NodeProto], kind: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(AdoptionError, match=message):
        read(tmp_path, nodes, one(FLOAT, IMAGE), {"y": (kind, None)}, rows=[-1, 3, 64])


def test_operators_of_a_library_are_named(tmp_path: Path) -> None:
    custom = [node("Classify", "x", "y", domain="acme")]
    with pytest.raises(AdoptionError, match=r"operators that .* lacks .*: Classify of acme"):
        read(tmp_path, custom, one(FLOAT, IMAGE), SCORES)


def test_what_onnx_runtime_does_not_open_is_said_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(AdoptionError, match=r"does not open given.onnx: .*Nonsense"):
        read(tmp_path, [node("Nonsense", "x", "y")], one(FLOAT, IMAGE), SCORES)


def test_a_file_that_fails_for_a_picture_is_said_to(tmp_path: Path) -> None:
    nodes = [node("Reshape", "x rows", "y")]
    with pytest.raises(AdoptionError, match="onnx fails for a picture"):
        read(tmp_path, nodes, one(FLOAT, IMAGE), SCORES, rows=[7, 3])


def test_layout_size_batch_and_classes_are_read_off(tmp_path: Path) -> None:
    given = read(tmp_path, CLASSES, one(FLOAT, [4, 3, 8, 8]), SCORES)
    assert (given.layout, given.size, given.batch, given.classes) == ("NCHW", 8, 4, 3)
    given = read(tmp_path, CLASSES, one(FLOAT, IMAGE), {"y": (FLOAT, None)})
    assert (given.batch, given.classes, given.ending.activation) == (0, 3, "")
    means = [node("ReduceMean", "x", "y", axes=[1, 2], keepdims=0)]
    given = read(tmp_path, means, one(FLOAT, [1, 8, 8, 3]), SCORES)
    assert (given.layout, given.size, given.batch) == ("NHWC", 8, 1)


def test_the_crop_is_the_size_of_a_file_that_takes_any(tmp_path: Path) -> None:
    shape: Shape = ["n", 3, "h", "w"]
    assert read(tmp_path, CLASSES, one(FLOAT, shape), SCORES, crop=32).size == 32
    with pytest.raises(AdoptionError, match="cropped to 16×16: give --crop 8"):
        read(tmp_path, CLASSES, one(FLOAT, IMAGE), SCORES, crop=16)


def test_scores_with_empty_axes_are_scores(tmp_path: Path) -> None:
    pooled = [node("GlobalAveragePool", "x", "y")]  # N×3×1×1
    assert read(tmp_path, pooled, one(FLOAT, IMAGE), {"y": (FLOAT, None)}).classes == 3
