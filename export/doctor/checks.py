"""The checks of `convoy doctor` on a version's folder, one per function.

A check yields what is wrong and the one command that fixes it. It raises `Unreadable` for what it
cannot read, which is reported once, however many checks need it.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from google.protobuf.message import Message
from tritonclient.grpc.model_config_pb2 import DataType

from export.catalog import MAX_GOLDEN_BYTES
from export.conversion.engine_header import read_header
from export.doctor.folder import (
    BACKEND_FILES,
    CONFIG_FILE,
    LABELS_FILE,
    ONNX_FILE,
    PLAN_FILE,
    PLATFORM_BACKENDS,
    Finding,
    Unreadable,
    VersionFolder,
    command,
    differs,
)
from export.doctor.rebuild import rebuild_command
from export.errors import EngineError
from export.files import file_sha256
from export.repository.config import FACTS_KEY, evidence_outputs, labels_text, manifest_digest
from export.repository.layout import MODEL_FILES

FILE_FORMATS = {str(file): format_ for format_, file in MODEL_FILES.items()}
# Settings that no build makes, and their effect.
HARMFUL_SETTINGS = {
    "dynamic_batching.preferred_batch_size": "Triton makes surprising batches of it",
    "dynamic_batching.priority_levels": "it stalls Triton's batcher",
    "dynamic_batching.default_priority_level": "it stalls Triton's batcher",
    "dynamic_batching.default_queue_policy": "it stalls Triton's batcher",
    "dynamic_batching.priority_queue_policy": "it stalls Triton's batcher",
    "optimization.cuda.graphs": "an answer may be that of the previous request",
    "response_cache.enable": "answers outlive their model",
    "sequence_batching": "the gateway sends images, not sequences",
    "ensemble_scheduling": "a version is one network",
    "version_policy": "the gateway only asks for version 1",
}

Problem = tuple[str, str]  # what is wrong, and the command that fixes it


# ------------------------------------------------------------------------------ the checks


def config(version: VersionFolder) -> Iterator[Problem]:
    """It has Triton's schema (its client's protobuf), and the name of the folder or none."""
    name = version.config.name
    if name not in ("", version.name):
        yield differs(f"{CONFIG_FILE}, name", f"none, or {version.name}", repr(name)), version.fix


def files(version: VersionFolder) -> Iterator[Problem]:
    """There are no other files: Triton reads each folder, and reloads after each change."""
    expected = [CONFIG_FILE, LABELS_FILE, "1", version.model_file]
    for path in itertools.chain(_entries(version, "."), _entries(version, "1")):
        name = str(path.relative_to(version.path))
        if name in expected:
            continue
        kind = "a second version" if name.isdigit() and path.is_dir() else "something else"
        if path.is_symlink() and not path.exists():
            kind = f"a link to {path.readlink()}, which does not exist"
        yield differs(name, f"only {', '.join(expected)}", kind), command("rm", "-r", path)


def backend(version: VersionFolder) -> Iterator[Problem]:
    config, file = version.config, version.model_file
    expected = next(name for name in BACKEND_FILES if BACKEND_FILES[name] == file)
    if version.backend != expected:
        actual = repr(config.backend or config.platform)
        yield differs(f"{CONFIG_FILE}, backend for {file}", expected, actual), version.fix
    if config.platform and PLATFORM_BACKENDS.get(config.platform) != expected:
        yield differs(f"{CONFIG_FILE}, platform", "none", repr(config.platform)), version.fix
    if config.default_model_filename not in ("", Path(file).name):
        actual = repr(config.default_model_filename)
        yield differs(f"{CONFIG_FILE}, default_model_filename", "none", actual), version.fix
    format_ = version.facts.manifest.format
    if format_ not in ("", FILE_FORMATS[file]):
        yield differs("manifest, format", FILE_FORMATS[file], repr(format_)), version.fix


def facts(version: VersionFolder) -> Iterator[Problem]:
    """The manifest has the digest that is stored with it, computed from its text."""
    stored = version.facts.manifest_digest
    manifest = version.facts_json.get("manifest")
    actual = manifest_digest(manifest) if manifest else "no manifest"
    if stored != actual:
        yield differs(f"{FACTS_KEY}, manifest_digest of the manifest", stored, actual), version.fix


def tensors(version: VersionFolder) -> Iterator[Problem]:
    """config.pbtxt, the graph and the facts agree in names, types and shapes without the batch."""
    config, image = version.config, version.facts.input
    configured = {
        f"{kind} {tensor.name}": _render(DataType.Name(tensor.data_type)[5:], tensor.dims)
        for kind, group in (("input", config.input), ("output", config.output))
        for tensor in group
    }
    actual = {CONFIG_FILE: configured}
    if version.model_file == ONNX_FILE:
        actual[ONNX_FILE] = {
            tensor: _render(kind, shape[1:]) for tensor, (kind, shape) in version.graph.items()
        }
    expected = {
        "input image": _render("UINT8", [image.height, image.width, image.channels]),
        # The number of classes is checked with the labels.
        "output probabilities": _render("FP32", [_classes(version) or len(version.facts.labels)]),
        "output batch_size": _render("INT32", [1]),
        **{
            f"output {tensor.name}": _render(DataType.Name(tensor.data_type)[5:], tensor.dims)
            for tensor in evidence_outputs(version.facts)
        },
    }
    for source, tensors in actual.items():
        for tensor in sorted(expected | tensors):
            wanted, described = expected.get(tensor, "none"), tensors.get(tensor, "none")
            if wanted != described:
                yield differs(f"{source}, {tensor}", wanted, described), version.fix


def batching(version: VersionFolder) -> Iterator[Problem]:
    """The model accepts one to max_batch_size images."""
    max_batch, engine = version.config.max_batch_size, version.facts.manifest.engine
    if max_batch < 1:
        yield differs(f"{CONFIG_FILE}, max_batch_size", "at least 1", max_batch), version.fix
    if version.model_file == ONNX_FILE:
        for tensor, (_, shape) in version.graph.items():
            if not shape or isinstance(shape[0], int):
                actual = f"the shape {shape}"
                yield differs(f"{ONNX_FILE}, batch of {tensor}", "any", actual), version.fix
    elif not 1 == engine.min_batch <= engine.opt_batch <= engine.max_batch >= max_batch:
        profile = f"{engine.min_batch}, {engine.opt_batch}, {engine.max_batch}"
        expected = f"1, any, at least {max_batch} (max_batch_size)"
        yield differs("engine's profile: min, opt, max", expected, profile), version.fix


def settings(version: VersionFolder) -> Iterator[Problem]:
    for path, harm in HARMFUL_SETTINGS.items():
        if _is_set(version.config, path):
            yield differs(f"{CONFIG_FILE}, {path}", "none", f"a value: {harm}"), version.fix


def preprocessing(version: VersionFolder) -> Iterator[Problem]:
    """The gateway's preprocessing produces the network's input."""
    image, transform = version.facts.input, version.facts.preprocessing
    kind = transform.WhichOneof("kind")
    if kind is None:
        yield differs("preprocessing", "photo or digit", "none"), version.fix
        return
    photo = kind == "photo"
    side, channels = (transform.photo.crop, 3) if photo else (transform.digit.size, 1)
    actual = _render(kind, [side, side, channels])
    expected = _render(kind, [image.height, image.width, image.channels])
    if actual != expected:
        yield differs("preprocessing", expected, actual), version.fix
    inner, outer = (side, transform.photo.resize) if photo else (transform.digit.box, side)
    if not 0 < inner <= outer:
        expected = "crop within resize" if photo else "box within size"
        yield differs("preprocessing", expected, f"{inner} within {outer}"), version.fix


def labels(version: VersionFolder) -> Iterator[Problem]:
    """There is one per class, and they are the same in the three places that have them."""
    labels, classes = version.facts.labels, _classes(version)
    if classes != len(labels):
        actual = f"{len(labels)} labels"
        yield differs("labels", f"{classes}, as many as probabilities", actual), version.fix
    text = labels_text(labels)
    for number, (ours, other) in enumerate(
        itertools.zip_longest(text.splitlines(), version.read(LABELS_FILE).splitlines()), start=1
    ):
        if ours != other:
            place = f"{LABELS_FILE}, line {number}"
            yield differs(place, repr(ours or "no more"), repr(other or "no more")), version.fix
            break
    stored, actual = version.facts.manifest.labels_sha256, hashlib.sha256(text.encode()).hexdigest()
    if stored != actual:
        yield differs("labels, their sha256 as in the manifest", stored, actual), version.fix


def hashes(version: VersionFolder) -> Iterator[Problem]:
    """The model file is the one that was built and proven."""
    manifest, file = version.facts.manifest, version.model_file
    stored = manifest.onnx_sha256 if file == ONNX_FILE else manifest.engine.sha256
    actual = file_sha256(version.require(file))
    if actual != stored:
        yield differs(f"{file}, sha256 as in the manifest", stored or "one", actual), version.fix


def engine(version: VersionFolder) -> Iterator[Problem]:
    """TensorRT only loads plans of its own version, and Triton loads no RTX engines."""
    if version.model_file != PLAN_FILE:
        return
    stored = version.facts.manifest.engine
    try:
        header = read_header(version.require(PLAN_FILE))
    except EngineError as error:
        yield f"{PLAN_FILE}: {error}", version.fix
        return
    if header.kind != "tensorrt":
        yield differs(PLAN_FILE, "a plan of TensorRT", f"an engine of {header.kind}"), version.fix
    if header.version.split(".") != stored.version.split(".")[:4]:
        what = f"{PLAN_FILE}, its TensorRT as in the manifest"
        yield differs(what, stored.version or "a version", header.version), version.fix


def golden(version: VersionFolder) -> Iterator[Problem]:
    """There are some, with valid contents: a gateway serves no version without them."""
    images, names = version.facts.golden_images, [label.name for label in version.facts.labels]
    if not images:
        yield differs("golden images", "one to three", "none"), version.fix
    for image in images:
        where = f"golden image {image.name}"
        if len(image.content) > MAX_GOLDEN_BYTES:
            actual = f"{len(image.content)} bytes"
            yield differs(where, f"at most {MAX_GOLDEN_BYTES} bytes", actual), version.fix
        if reason := _decoding_error(image.content):
            yield differs(where, "a JPEG or PNG", reason), version.fix
        if not image.expected or not image.tolerance > 0:
            actual = f"{len(image.expected)} within {image.tolerance:g}"
            yield differs(where, "scores within a tolerance", actual), version.fix
        for answer in image.expected:
            label = dict(enumerate(names)).get(answer.index, "none")
            if answer.label != label:
                what = f"{where}, label of class {answer.index}"
                yield differs(what, repr(label), repr(answer.label)), version.fix
                break  # if one label moved, others did


CHECKS: tuple[Callable[[VersionFolder], Iterator[Problem]], ...] = (
    config,
    files,
    backend,
    facts,
    tensors,
    batching,
    settings,
    preprocessing,
    labels,
    hashes,
    engine,
    golden,
)


def examine(version: VersionFolder) -> Iterator[Finding]:
    """Yields the findings of all checks, each unreadable part once."""
    reported = set()
    for check in CHECKS:
        try:
            for problem, remedy in check(version):
                yield Finding(version.name, check.__name__, problem, remedy)
        except Unreadable as error:
            if error.problem not in reported:
                yield Finding(version.name, check.__name__, error.problem, error.remedy)
            reported.add(error.problem)


def describe_build(version: VersionFolder) -> Iterator[Finding]:
    """For information: how a faulty version was built, if no remedy builds it again."""
    recorded = version.recorded_build
    if recorded and not rebuild_command(version.model, recorded):
        problem = f"its manifest, which this does not trust, says that it was built by {recorded!r}"
        yield Finding(version.name, "build", problem, version.fix, is_fault=False)


def _entries(version: VersionFolder, folder: str) -> Iterable[Path]:
    path = version.require(folder)
    return sorted(path.iterdir()) if path.is_dir() else ()


def _classes(version: VersionFolder) -> int:
    """Returns the length of `probabilities` in config.pbtxt; 0 if there is none."""
    outputs = {tensor.name: list(tensor.dims) for tensor in version.config.output}
    match outputs.get("probabilities"):
        case [classes]:
            return int(classes)
        case _:
            return 0


def _render(kind: str, dims: Iterable[object]) -> str:
    return f"{kind} {'×'.join(map(str, dims))}"


def _is_set(message: Message, path: str) -> bool:
    first, _, rest = path.partition(".")
    for field, value in message.ListFields():
        if field.name == first:
            return _is_set(value, rest) if rest else True
    return False


def _decoding_error(content: bytes) -> str:
    from PIL import Image

    try:
        Image.open(io.BytesIO(content), formats=("JPEG", "PNG")).load()
    except Exception as error:  # Pillow's errors have no common base class
        return str(error).partition(" <")[0]
    return ""
