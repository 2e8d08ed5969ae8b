"""A user's ONNX file, read with its external data, and nothing outside its folder.

A file can name any path for its weights, and any length. So places and sizes are checked before a
byte of them is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_model,
    uses_external_data,
)

from export.errors import AdoptionError
from export.files import file_sha256, shown_name

# A version holds its weights in one file, and protobuf has a limit of 2 GiB.
MAX_BYTES = 2_000_000_000
# How files of other kinds begin, what they are, and what takes them.
KINDS = (
    (b"PK\x03\x04", "a zip archive, as torch.save and Keras write them", "`convoy build` takes "
     ".pth files; docs/moving-in.md has the commands that make ONNX of .keras"),
    (b"\x89HDF", "an HDF5 file, as Keras writes them", "docs/moving-in.md has the commands that "
     "make ONNX of it"),
    (b"\x80", "a pickle, as old torch.save writes them", "`convoy build` takes .pth files"),
    (b"version https://git-lfs", "a pointer of Git LFS", "`git lfs pull` fetches the file"),
)  # fmt: skip


@dataclass(frozen=True)
class OnnxFile:
    path: Path
    model: onnx.ModelProto  # with its weights
    sha256: str
    external_data: dict[str, str]  # sha256 of each file beside it, by its place in the folder

    @property
    def name(self) -> str:
        return shown_name(self.path)


def read_onnx_file(path: Path) -> OnnxFile:
    """
    Raises:
        AdoptionError: it is no ONNX file, is too large, or its external data is not beside it.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise AdoptionError(_too_large(path, size))
        content = path.read_bytes()
    except OSError as error:
        raise AdoptionError(
            f"{path} cannot be read ({error.strerror}): name an .onnx file."
        ) from error
    model, sha256 = _parse(path, content), hashlib.sha256(content).hexdigest()
    files = _external_files(path, model, size)
    if files:
        load_external_data_for_model(model, str(path.parent))
    return OnnxFile(path, model, sha256, {name: file_sha256(path.parent / name) for name in files})


def _parse(path: Path, content: bytes) -> onnx.ModelProto:
    for beginning, kind, remedy in KINDS:
        if content.startswith(beginning):
            raise AdoptionError(f"{path} is {kind}, and no ONNX file: {remedy}.")
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        model = onnx.ModelProto()
    if not (model.graph.node and model.opset_import):
        raise AdoptionError(
            f"{path} is no ONNX file, or not all of it: expected a ModelProto with a graph, as "
            "torch.onnx.export writes it."
        )
    return model


def _external_files(path: Path, model: onnx.ModelProto, size: int) -> list[str]:
    """The files that hold weights, by their place in the folder of `path`.

    Raises:
        AdoptionError: one is outside the folder, missing or too short, or all are too large.
    """
    folder, total, names = path.parent.resolve(), size, set()
    for tensor in filter(uses_external_data, tensors(model.graph)):
        try:
            place = ExternalDataInfo(tensor)
            offset, length = int(place.offset or 0), int(place.length or 0)
        except ValueError as error:
            raise AdoptionError(f"{path} does not say where {tensor.name} is: {error}.") from error
        file = folder / place.location
        if not file.resolve().is_relative_to(folder) or Path(place.location).is_absolute():
            raise AdoptionError(
                f"{path} takes {tensor.name} from {place.location!r}, which is outside its "
                "folder: save the model again, with its data beside it."
            )
        if not file.is_file():
            raise AdoptionError(
                f"{path} takes {tensor.name} from {place.location!r}, and {file} does not exist: "
                "put it there."
            )
        end = offset + (length or max(0, file.stat().st_size - offset))
        if end > file.stat().st_size:
            raise AdoptionError(
                f"{path} takes {tensor.name} from the bytes {offset} to {end} of "
                f"{place.location!r}, which has {file.stat().st_size}: is it all of the file?"
            )
        total += end - offset
        names.add(place.location)
    if total > MAX_BYTES:
        raise AdoptionError(_too_large(path, total))
    return sorted(names)


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All constants of a graph and of the graphs within it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from tensors(inner)


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """With those of the graphs within them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_nodes(inner.node)


def _too_large(path: Path, size: int) -> str:
    return (
        f"{path} has {size / 1e9:.1f} GB of weights, and a version holds at most "
        f"{MAX_BYTES / 1e9:.0f} GB."
    )
