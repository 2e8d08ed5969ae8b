from pathlib import Path

import pytest

from export.conversion.engine_header import EngineHeader, read_header
from export.errors import EngineError


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.plan"
    path.write_bytes(content)
    return path


def test_a_plan_tells_what_built_it(tmp_path: Path) -> None:
    path = written(tmp_path, b"ftrt" + bytes(20) + bytes([10, 16, 1, 11]) + b"the rest")
    assert read_header(path) == EngineHeader("tensorrt", "10.16.1.11")


def test_an_rtx_engine_is_told_from_a_plan(tmp_path: Path) -> None:
    path = written(tmp_path, b"vtrt" + bytes(20) + bytes([1, 7, 1, 116]))
    assert read_header(path) == EngineHeader("tensorrt_rtx", "1.7.1.116")


@pytest.mark.parametrize("content", [b"", b"\x08\x0a" + bytes(40), b"ftrt" + bytes(23)])
def test_what_is_no_engine_is_refused(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    with pytest.raises(EngineError, match=r"model\.plan is not a TensorRT engine: .* build it"):
        read_header(path)


def test_an_onnx_file_is_no_engine(shipped_lenet5: Path) -> None:
    with pytest.raises(EngineError, match=r"model\.onnx is not a TensorRT engine"):
        read_header(shipped_lenet5 / "1" / "model.onnx")


def test_a_missing_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"model\.plan cannot be read: No such file"):
        read_header(tmp_path / "model.plan")
