from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.adoption import onnx_file
from export.adoption.onnx_file import read_onnx_file
from export.errors import AdoptionError

WEIGHTS = np.arange(6, dtype=np.float32).reshape(3, 2)


def save(folder: Path, **place: object) -> Path:
    """A model whose weights are in another file, at that place."""
    weights = numpy_helper.from_array(WEIGHTS, "weights")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        weights.external_data.add(key=key, value=str(value))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [weights],
    )
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(bytes(8) + WEIGHTS.tobytes())
    file = read_onnx_file(save(tmp_path, location="data/w.bin", offset=8, length=24))
    assert (numpy_helper.to_array(file.model.graph.initializer[0]) == WEIGHTS).all()
    assert list(file.external_data) == ["data/w.bin"]


@pytest.mark.parametrize("kind", ["above", "absolute", "link", "linked folder"])
def test_weights_outside_its_folder_are_not_read(kind: str, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(WEIGHTS.tobytes())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path)
    locations = {
        "above": "../secret",
        "absolute": str(outside),
        "link": "link",
        "linked folder": "linked/secret",
    }
    with pytest.raises(AdoptionError, match="which is outside its folder"):
        read_onnx_file(save(folder, location=locations[kind], length=24))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"location": "none"}, "does not exist: put it there"),
        ({"location": "w", "length": 25}, "from the bytes 0 to 25 of 'w', which has 24"),
        ({"location": "w", "offset": 20, "length": 24}, "from the bytes 20 to 44"),
        ({"location": "w", "offset": -4, "length": 24}, "does not say where weights is: .*-4"),
        ({"location": "w", "offset": "a"}, "does not say where weights is"),
        ({"location": ""}, "does not exist: put it there"),
    ],
)
def test_weights_that_are_not_there_are_said_to_be(
    place: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "w").write_bytes(WEIGHTS.tobytes())
    with pytest.raises(AdoptionError, match=message):
        read_onnx_file(save(tmp_path, **place))


def test_more_weights_than_one_file_can_hold_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").write_bytes(WEIGHTS.tobytes())
    path = save(tmp_path, location="w", length=24)
    monkeypatch.setattr(onnx_file, "MAX_BYTES", path.stat().st_size + 23)
    with pytest.raises(AdoptionError, match="a version holds at most"):
        read_onnx_file(path)
    monkeypatch.setattr(onnx_file, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(AdoptionError, match="a version holds at most"):
        read_onnx_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04...", "a zip archive, as torch.save and Keras write them"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\x80\x02}q", "a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"", "no ONNX file, or not all of it"),
        (b"hello, world", "no ONNX file, or not all of it"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "no ONNX file, or not all of it"),
    ],
)
def test_other_files_are_refused_by_their_kind(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(AdoptionError, match=message):
        read_onnx_file(path)


def test_a_file_that_is_not_there_or_is_a_folder_is_said_to_be(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(AdoptionError, match="cannot be read"):
            read_onnx_file(path)
