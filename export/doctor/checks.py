"""What `convoy doctor` looks at in a version's folder, one check a function.

A check yields what is wrong and the one command that mends it. What it cannot even read is raised
(`Unread`) and said once, however many checks wanted it.
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
    BACKEND_OF_PLATFORM,
    CONFIG_FILE,
    FILE_OF_BACKEND,
    LABELS_FILE,
    ONNX_FILE,
    PLAN_FILE,
    Finding,
    Unread,
    Version,
    command,
    differs,
)
from export.errors import EngineError
from export.files import file_sha256
from export.repository.config import FACTS_KEY, labels_text, manifest_digest
from export.repository.layout import MODEL_FILES

FORMAT_OF_FILE = {str(file): format_ for format_, file in MODEL_FILES.items()}
# What a build sets never, and what happens where it is set.
HARMFUL_SETTINGS = {
    "dynamic_batching.preferred_batch_size": "Triton makes surprising batches of it",
    "dynamic_batching.priority_levels": "it stalls Triton's batcher",
    "dynamic_batching.default_priority_level": "it stalls Triton's batcher",
    "dynamic_batching.default_queue_policy": "it stalls Triton's batcher",
    "dynamic_batching.priority_queue_policy": "it stalls Triton's batcher",
    "optimization.cuda.graphs": "an answer may be that of the request before",
    "response_cache.enable": "answers outlive the model that gave them",
    "sequence_batching": "the gateway sends images, not sequences",
    "ensemble_scheduling": "a version is one network",
    "version_policy": "the gateway asks for version 1 alone",
}

Problem = tuple[str, str]  # what is wrong, and the command that mends it


# ------------------------------------------------------------------------------ of a version


def config(version: Version) -> Iterator[Problem]:
    """Triton's own schema, which the protobuf of its client has; and the folder's name counts."""
    found = version.config.name
    if found not in ("", version.name):
        yield differs(f"{CONFIG_FILE}, name", f"none, or {version.name}", repr(found)), version.mend


def files(version: Version) -> Iterator[Problem]:
    """Nothing but what belongs there: Triton reads each folder, and reloads for each change."""
    belongs = [CONFIG_FILE, LABELS_FILE, "1", version.model_file]
    for path in itertools.chain(_entries(version, "."), _entries(version, "1")):
        name = str(path.relative_to(version.path))
        if name in belongs:
            continue
        kind = "a second version" if name.isdigit() and path.is_dir() else "something else"
        if path.is_symlink() and not path.exists():
            kind = f"a link to {path.readlink()}, which is not there"
        yield differs(name, f"{', '.join(belongs)} alone", kind), command("rm", "-r", path)


def backend(version: Version) -> Iterator[Problem]:
    config, file = version.config, version.model_file
    wanted = next(name for name in FILE_OF_BACKEND if FILE_OF_BACKEND[name] == file)
    if version.backend != wanted:
        found = repr(config.backend or config.platform)
        yield differs(f"{CONFIG_FILE}, backend for {file}", wanted, found), version.mend
    if config.platform and BACKEND_OF_PLATFORM.get(config.platform) != wanted:
        yield differs(f"{CONFIG_FILE}, platform", "none", repr(config.platform)), version.mend
    if config.default_model_filename not in ("", Path(file).name):
        found = repr(config.default_model_filename)
        yield differs(f"{CONFIG_FILE}, default_model_filename", "none", found), version.mend
    made = version.facts.manifest.format
    if made not in ("", FORMAT_OF_FILE[file]):
        yield differs("manifest, format", FORMAT_OF_FILE[file], repr(made)), version.mend


def facts(version: Version) -> Iterator[Problem]:
    """The manifest is what its digest says, computed from the text as it stands there."""
    told = version.facts.manifest_digest
    manifest = version.facts_json.get("manifest")
    found = manifest_digest(manifest) if manifest else "no manifest"
    if told != found:
        yield differs(f"{FACTS_KEY}, manifest_digest of the manifest", told, found), version.mend


def tensors(version: Version) -> Iterator[Problem]:
    """Names, types and shapes without the batch: of config.pbtxt, of the graph, of the facts."""
    config, taken = version.config, version.facts.input
    configured = {
        f"{kind} {tensor.name}": _shown(DataType.Name(tensor.data_type)[5:], tensor.dims)
        for kind, group in (("input", config.input), ("output", config.output))
        for tensor in group
    }
    found = {CONFIG_FILE: configured}
    if version.model_file == ONNX_FILE:
        found[ONNX_FILE] = {
            tensor: _shown(kind, shape[1:]) for tensor, (kind, shape) in version.graph.items()
        }
    expected = {
        "input image": _shown("UINT8", [taken.height, taken.width, taken.channels]),
        # How many classes there are, the labels say: a check of its own.
        "output probabilities": _shown("FP32", [_classes(version) or len(version.facts.labels)]),
        "output batch_size": _shown("INT32", [1]),
    }
    for source, tensors in found.items():
        for tensor in sorted(expected | tensors):
            one, other = expected.get(tensor, "none"), tensors.get(tensor, "none")
            if one != other:
                yield differs(f"{source}, {tensor}", one, other), version.mend


def batching(version: Version) -> Iterator[Problem]:
    """From one image to max_batch_size."""
    most, engine = version.config.max_batch_size, version.facts.manifest.engine
    if most < 1:
        yield differs(f"{CONFIG_FILE}, max_batch_size", "1 at least", most), version.mend
    if version.model_file == ONNX_FILE:
        for tensor, (_, shape) in version.graph.items():
            if not shape or isinstance(shape[0], int):
                found = f"the shape {shape}"
                yield differs(f"{ONNX_FILE}, batch of {tensor}", "any", found), version.mend
    elif not 1 == engine.min_batch <= engine.opt_batch <= engine.max_batch >= most:
        profile = f"{engine.min_batch}, {engine.opt_batch}, {engine.max_batch}"
        wanted = f"1, some, {most} at least (max_batch_size)"
        yield differs("engine's profile, least, fastest, most", wanted, profile), version.mend


def settings(version: Version) -> Iterator[Problem]:
    for path, harm in HARMFUL_SETTINGS.items():
        if _is_set(version.config, path):
            yield differs(f"{CONFIG_FILE}, {path}", "none", f"it set: {harm}"), version.mend


def preprocessing(version: Version) -> Iterator[Problem]:
    """What the gateway makes of a picture is what the network takes."""
    taken, made = version.facts.input, version.facts.preprocessing
    kind = made.WhichOneof("kind")
    if kind is None:
        yield differs("preprocessing", "photo or digit", "none"), version.mend
        return
    photo = kind == "photo"
    side, channels = (made.photo.crop, 3) if photo else (made.digit.size, 1)
    found = _shown(kind, [side, side, channels])
    expected = _shown(kind, [taken.height, taken.width, taken.channels])
    if found != expected:
        yield differs("preprocessing", expected, found), version.mend
    inner, outer = (side, made.photo.resize) if photo else (made.digit.box, side)
    if not 0 < inner <= outer:
        words = "crop within resize" if photo else "box within size"
        yield differs("preprocessing", words, f"{inner} within {outer}"), version.mend


def labels(version: Version) -> Iterator[Problem]:
    """As many as classes, and the same in the three places that have them."""
    labels, classes = version.facts.labels, _classes(version)
    if classes != len(labels):
        found = f"{len(labels)} labels"
        yield differs("labels", f"{classes}, as many as probabilities", found), version.mend
    text = labels_text(labels)
    for number, (ours, other) in enumerate(
        itertools.zip_longest(text.splitlines(), version.read(LABELS_FILE).splitlines()), start=1
    ):
        if ours != other:
            found = f"{LABELS_FILE}, line {number}"
            yield differs(found, repr(ours or "no more"), repr(other or "no more")), version.mend
            break
    told = version.facts.manifest.labels_sha256
    if (found := hashlib.sha256(text.encode()).hexdigest()) != told:
        yield differs("labels, their sha256 as in the manifest", told, found), version.mend


def hashes(version: Version) -> Iterator[Problem]:
    """The file is the one that was built and proven."""
    manifest, file = version.facts.manifest, version.model_file
    told = manifest.onnx_sha256 if file == ONNX_FILE else manifest.engine.sha256
    found = file_sha256(version.require(file))
    if found != told:
        yield differs(f"{file}, sha256 as in the manifest", told or "one", found), version.mend


def engine(version: Version) -> Iterator[Problem]:
    """TensorRT loads plans of its own version alone, and Triton no RTX engines."""
    if version.model_file != PLAN_FILE:
        return
    told = version.facts.manifest.engine
    try:
        header = read_header(version.require(PLAN_FILE))
    except EngineError as error:
        yield f"{PLAN_FILE}: {error}", version.mend
        return
    if header.kind != "tensorrt":
        yield differs(PLAN_FILE, "a plan of TensorRT", f"an engine of {header.kind}"), version.mend
    if header.version.split(".") != told.version.split(".")[:4]:
        found = f"{PLAN_FILE}, its TensorRT as in the manifest"
        yield differs(found, told.version or "a version", header.version), version.mend


def golden(version: Version) -> Iterator[Problem]:
    """A gateway serves nothing that has none, and believes what they say."""
    images, names = version.facts.golden_images, [label.name for label in version.facts.labels]
    if not images:
        yield differs("golden images", "one to three", "none"), version.mend
    for image in images:
        where = f"golden image {image.name}"
        if len(image.content) > MAX_GOLDEN_BYTES:
            found = f"{len(image.content)} bytes"
            yield differs(where, f"{MAX_GOLDEN_BYTES} bytes at most", found), version.mend
        if reason := _why_no_image(image.content):
            yield differs(where, "a JPEG or PNG", reason), version.mend
        if not image.expected or not image.tolerance > 0:
            found = f"{len(image.expected)} within {image.tolerance:g}"
            yield differs(where, "scores within a tolerance", found), version.mend
        for answer in image.expected:
            label = dict(enumerate(names)).get(answer.index, "none")
            if answer.label != label:
                what = f"{where}, label of class {answer.index}"
                yield differs(what, repr(label), repr(answer.label)), version.mend
                break  # where one label moved, others did


CHECKS: tuple[Callable[[Version], Iterator[Problem]], ...] = (
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


def examine(version: Version) -> Iterator[Finding]:
    said = set()
    for check in CHECKS:
        try:
            for problem, remedy in check(version):
                yield Finding(version.name, check.__name__, problem, remedy)
        except Unread as error:
            if error.problem not in said:
                yield Finding(version.name, check.__name__, error.problem, error.remedy)
            said.add(error.problem)


def _entries(version: Version, folder: str) -> Iterable[Path]:
    path = version.require(folder)
    return sorted(path.iterdir()) if path.is_dir() else ()


def _classes(version: Version) -> int:
    """The length of `probabilities`, as Triton is told."""
    outputs = {tensor.name: list(tensor.dims) for tensor in version.config.output}
    match outputs.get("probabilities"):
        case [classes]:
            return int(classes)
        case _:
            return 0


def _shown(kind: str, dims: Iterable[object]) -> str:
    return f"{kind} {'×'.join(map(str, dims))}"


def _is_set(message: Message, path: str) -> bool:
    first, _, rest = path.partition(".")
    for field, value in message.ListFields():
        if field.name == first:
            return _is_set(value, rest) if rest else True
    return False


def _why_no_image(content: bytes) -> str:
    from PIL import Image

    try:
        Image.open(io.BytesIO(content), formats=("JPEG", "PNG")).load()
    except Exception as error:  # Pillow's errors share no base class
        return str(error).partition(" <")[0]
    return ""
