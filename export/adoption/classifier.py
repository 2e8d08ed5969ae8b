"""What an ONNX file takes and gives, if it is an image classifier; else what it is.

Its shapes are read off the file, and those of its outputs off an answer of ONNX Runtime: graphs
leave them out, or declare them wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from export.adoption.endings import Ending, LinearEnd, class_maps, constants, read_ending
from export.adoption.onnx_file import OnnxFile, all_nodes
from export.adoption.sessions import open_session, run_in_batches, with_outputs
from export.errors import AdoptionError

Layout = Literal["NCHW", "NHWC"]

# The standard's own operators, and those of ONNX Runtime, which is what serves.
DOMAINS = ("", "ai.onnx", "com.microsoft")
PIXEL_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8)
SCORE_TYPES = (np.float32, np.float16, np.float64)
# By the number of axes, batch included.
OTHER_INPUTS = {
    1: "a list of numbers",
    2: "a table of features",
    3: "a sequence",
    5: "a video or a volume",
}
COLOURS = 3
MAX_MAP_DIFFERENCE = 1e-3  # share of the largest logit, as of the catalog's networks


@dataclass(frozen=True)
class Classifier:
    file: OnnxFile
    input: str
    layout: Layout
    element_type: int  # TensorProto.FLOAT or another of PIXEL_TYPES
    size: int  # pixels, the side of its square input
    batch: int  # how many images it takes at once; 0: any number
    output: str
    classes: int
    ending: Ending  # with a linear end only if heat-maps can be read off it
    maps: tuple[int, int, int] = (0, 0, 0)  # F×h×w: the features, and cells of a heat-map

    @property
    def dtype(self) -> npt.DTypeLike:
        return helper.tensor_dtype_to_np_dtype(self.element_type)

    @property
    def takes_pixels(self) -> bool:
        """As they are, 0 to 255: nothing is left to normalise."""
        return self.element_type == TensorProto.UINT8

    @property
    def features(self) -> int:
        return self.maps[0]

    @property
    def map_size(self) -> tuple[int, int]:
        return self.maps[1:]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one image."""
        square = (self.size, self.size)
        return (COLOURS, *square) if self.layout == "NCHW" else (*square, COLOURS)


def read_classifier(file: OnnxFile, crop: int = 0) -> Classifier:
    """`crop` is the size of pictures for a file that takes any.

    Raises:
        AdoptionError: it is no image classifier; the message says what it is.
    """
    _check_operators(file)
    image = _single_input(file)
    layout, size, batch = _geometry(file, image, crop)
    output = _single_output(file)
    given = Classifier(
        file=file,
        input=image.name,
        layout=layout,
        element_type=image.type.tensor_type.elem_type,
        size=size,
        batch=batch,
        output=output,
        classes=0,
        ending=read_ending(file.model.graph, output),
    )
    return _probe(given)


def _refuse(file: OnnxFile, reason: str) -> NoReturn:
    raise AdoptionError(f"{file.name} cannot be adopted: {reason}")


def _check_operators(file: OnnxFile) -> None:
    own = {(function.domain, function.name) for function in file.model.functions}
    foreign = {
        (node.domain, node.op_type)
        for node in all_nodes(file.model.graph.node)
        if node.domain not in DOMAINS and (node.domain, node.op_type) not in own
    }
    if foreign:
        listed = ", ".join(sorted(f"{name} of {domain}" for domain, name in foreign)[:5])
        _refuse(
            file,
            f"it uses operators that ONNX Runtime lacks without a library of their own: {listed}. "
            "Export it with the operators of the ONNX standard alone.",
        )


# ------------------------------------------------------------------------------ the input


def _single_input(file: OnnxFile) -> onnx.ValueInfoProto:
    graph = file.model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        listed = ", ".join(map(describe, inputs)) or "none"
        _refuse(
            file,
            f"it has {len(inputs)} inputs ({listed}), and an image classifier has one, the "
            "picture. Export it with the others as constants.",
        )
    (image,) = inputs
    kind = image.type.tensor_type.elem_type
    axes = len(image.type.tensor_type.shape.dim)
    if kind == TensorProto.STRING:
        _refuse(file, f"its input is text ({describe(image)}), and no picture.")
    if kind in (TensorProto.INT32, TensorProto.INT64) and axes <= COLOURS:
        _refuse(file, f"its input are numbers of tokens ({describe(image)}): a text model.")
    if axes != 4:
        other = OTHER_INPUTS.get(axes, "no picture")
        _refuse(file, f"its input is {other} ({describe(image)}); expected N×3×H×W or N×H×W×3.")
    if kind not in PIXEL_TYPES:
        _refuse(
            file,
            f"its input has the type {type_name(kind)} ({describe(image)}); expected float32, "
            "float16, float64, or uint8 pixels. A quantised network keeps a float32 input if it "
            "is quantised in the QDQ format.",
        )
    return image


def _geometry(file: OnnxFile, image: onnx.ValueInfoProto, crop: int) -> tuple[Layout, int, int]:
    """Layout, side in pixels, and batch size (0: any)."""
    batch, *dims = (axis.dim_value for axis in image.type.tensor_type.shape.dim)
    layouts: dict[Layout, tuple[int, list[int]]] = {
        "NCHW": (dims[0], dims[1:]),
        "NHWC": (dims[2], dims[:2]),
    }
    matching = [layout for layout, (channels, _) in layouts.items() if channels == COLOURS]
    if len(matching) != 1:
        _refuse(
            file,
            f"its input is {describe(image)}; expected 3 channels, red, green and blue, on a "
            "fixed axis: N×3×H×W or N×H×W×3.",
        )
    (layout,) = matching
    height, width = layouts[layout][1]
    if not (height and width) and not crop:
        _refuse(
            file,
            f"its input {describe(image)} takes pictures of any size: say with --crop N which "
            "size it was trained for.",
        )
    height, width = height or crop, width or crop
    if height != width:
        _refuse(file, f"its input is {describe(image)}, and pictures are prepared as squares.")
    if crop and crop != height:
        _refuse(
            file,
            f"its input is {describe(image)}, and pictures are cropped to {crop}×{crop}: give "
            f"--crop {height}.",
        )
    return layout, height, batch


# ------------------------------------------------------------------------------ the output


def _single_output(file: OnnxFile) -> str:
    outputs = file.model.graph.output
    if len(outputs) == 1:
        return outputs[0].name
    listed = ", ".join(map(describe, outputs))
    reason = (
        f"it has {len(outputs)} outputs ({listed}), as detectors have, and an image classifier "
        "has one, a score per class."
    )
    scores = [value.name for value in outputs if len(value.type.tensor_type.shape.dim) == 2]
    if len(scores) == 1:
        reason += f" If that is {scores[0]!r}, cut the others off: {_cut_command(file, scores[0])}"
    _refuse(file, reason)


def _cut_command(file: OnnxFile, output: str) -> str:
    inputs = [_single_input(file).name]
    arguments = f"{file.name!r}, 'classifier.onnx', {inputs!r}, [{output!r}]"
    return f'python -c "import onnx.utils; onnx.utils.extract_model({arguments})"'


def _probe(given: Classifier) -> Classifier:
    """Runs the file on noise: what its outputs are, and whether its maps are those of classes."""
    file, linear = given.file, given.ending.linear
    _check_outputs_type(file)
    inner = [linear.maps, linear.features, linear.logits] if linear else []
    noise = np.random.default_rng(0).integers(0, 256, (1, *given.input_shape)).astype(np.uint8)
    pixels = noise if given.takes_pixels else noise / 255
    session = open_session(with_outputs(file.model, [given.output, *inner]), file.name)
    answers = run_in_batches(session, pixels.astype(given.dtype), given.batch or 1, file.name)
    classes = _count_classes(file, answers[given.output])
    maps = _class_maps_shape(given, linear, answers) if linear else None
    if maps is None:
        return replace(given, classes=classes, ending=replace(given.ending, linear=None))
    return replace(given, classes=classes, maps=maps)


def _check_outputs_type(file: OnnxFile) -> None:
    (output,) = file.model.graph.output
    if not output.type.HasField("tensor_type"):
        kind = output.type.WhichOneof("value") or "nothing"
        _refuse(file, f"its output is of the kind {kind}, and a classifier's is a tensor N×K.")


def _count_classes(file: OnnxFile, answer: npt.NDArray[Any]) -> int:
    found = f"{file.model.graph.output[0].name} {answer.dtype} {shown(answer.shape[1:])}"
    if answer.dtype not in SCORE_TYPES:
        _refuse(
            file,
            f"its output is {found}, which are no scores: export it before the class is chosen "
            "(ArgMax), with a score per class.",
        )
    shape = list(answer.shape[1:])
    while len(shape) > 1 and shape[-1] == 1:  # N×K×1×1
        shape.pop()
    match len(shape):
        case 1:
            return int(shape[0])
        case 3:
            _refuse(file, f"its output is {found}: it scores places in a picture (segmentation).")
        case _:
            _refuse(file, f"its output is {found}; expected a score per class, N×K.")


def _class_maps_shape(
    given: Classifier, linear: LinearEnd, answers: dict[str, npt.NDArray[Any]]
) -> tuple[int, int, int] | None:
    """F×h×w, if the mean of a class's map is the class's logit but for the bias."""
    maps, features = answers[linear.maps], answers[linear.features]
    logits = answers[linear.logits].reshape(len(maps), -1).astype(np.float64)
    if maps.ndim != 4 or features.ndim != 2:
        return None
    maps = maps if linear.is_nchw else maps.transpose(0, 3, 1, 2)
    known = constants(given.file.model.graph)
    weights = known[linear.weights].T if linear.is_transposed else known[linear.weights]
    if maps.shape[1] != weights.shape[1] or logits.shape[1] != weights.shape[0]:
        return None
    means = class_maps(maps.astype(np.float64), weights.astype(np.float64)).mean((2, 3))
    difference = np.abs(means + known.get(linear.bias, 0) - logits).max()
    if not difference <= MAX_MAP_DIFFERENCE * np.abs(logits).max():
        return None
    _, features_count, height, width = maps.shape
    return features_count, height, width


# ------------------------------------------------------------------------------ for people


def describe(value: onnx.ValueInfoProto) -> str:
    """Such as "input float32 N×3×224×224"."""
    tensor = value.type.tensor_type
    dims = [axis.dim_value or axis.dim_param or "?" for axis in tensor.shape.dim]
    return f"{value.name} {type_name(tensor.elem_type)} {shown(dims)}".strip()


def shown(dims: Sequence[object]) -> str:
    return "×".join(map(str, dims))


def type_name(element_type: int) -> str:
    if element_type == TensorProto.STRING:
        return "string"
    try:
        return str(np.dtype(helper.tensor_dtype_to_np_dtype(element_type)))
    except (KeyError, TypeError, ValueError):
        return TensorProto.DataType.Name(element_type).lower()
