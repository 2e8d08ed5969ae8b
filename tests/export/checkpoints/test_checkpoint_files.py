import argparse
import datetime
import pathlib
import types
import warnings
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.checkpoints.checkpoint_files import read_checkpoint
from export.checkpoints.load import Loaded
from export.errors import CheckpointError

STATE = {"conv1.weight": torch.arange(4.0)}

HARMLESS: dict[str, Any] = {
    "numpy's scalar": np.float64(71.2),
    "numpy's array": np.arange(3),
    "a random state": np.random.default_rng(0).integers(9, size=4, dtype=np.uint32),
    "arguments": argparse.Namespace(lr=0.1, data=pathlib.Path("photos")),
    "a namespace": types.SimpleNamespace(lr=0.1),
    "a date": datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC),
    "a duration": datetime.timedelta(hours=3),
    "paths": [pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("b")],
    "a defaultdict": defaultdict(list, {"loss": [1.0]}),
    "a deque": deque([1, 2], maxlen=3),
    "torch's version": torch.__version__,
}


@pytest.mark.parametrize("record", HARMLESS)
@pytest.mark.parametrize("form", ["zip", "older"])
def test_harmless_records_beside_the_weights_are_read(
    record: str, form: str, tmp_path: Path
) -> None:
    path = tmp_path / "best.pth"
    content = {"state_dict": STATE, "beside": HARMLESS[record]}
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    read = read_checkpoint(path)
    assert torch.equal(read["state_dict"]["conv1.weight"], STATE["conv1.weight"])


def test_records_are_not_built_by_their_own_code(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=0.1), "best": np.float64(1)}, tmp_path / "best.pth")
    read = read_checkpoint(tmp_path / "best.pth")
    assert {type(value).__name__ for value in read.values()} == {"Record"}
    assert not any(map(vars, read.values()))


def test_what_is_read_here_is_read_nowhere_else(tmp_path: Path) -> None:
    torch.save(np.float64(1), tmp_path / "best.pth")
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(tmp_path / "best.pth")
    assert set(torch.serialization.get_safe_globals()) == before


class Harmful:
    """What weights_only=True is for: unpickling this would run code."""

    def __reduce__(self) -> Any:
        return (print, ("ran",))


@pytest.mark.parametrize("form", ["zip", "older"])
@pytest.mark.parametrize("place", ["weights", "beside them", "in a record"])
def test_file_that_would_run_code_is_refused(
    form: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pth"
    content = {
        "weights": {"c1.weight": Harmful()},
        "beside them": {"state_dict": STATE, "logger": Harmful()},
        "in a record": {"state_dict": STATE, "args": argparse.Namespace(logger=Harmful())},
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match=r"would run print when read: refused; .*torch\.save"):
        read_checkpoint(path)
    assert capsys.readouterr().out == ""


def test_the_two_lines_of_the_refusal_keep_the_weights_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": STATE, "logger": Harmful()}, "mine.pth")
    with pytest.raises(CheckpointError) as refused:
        read_checkpoint(Path("mine.pth"))
    first, second, _ = str(refused.value).split("`")[1::2]
    exec(f"{first}\n{second}", {"torch": torch})
    assert read_checkpoint(Path("weights.pth")).keys() == STATE.keys()


def test_script_of_a_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(1, 1)).save(path)
    with pytest.raises(CheckpointError, match=r"is not a state dict .* TorchScript archives"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_file_of_something_else_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(b"\xff\xd8 a photo")
    with pytest.raises(CheckpointError, match=r"is not a state dict|cannot be read as safetens"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "start"),
    [("model.keras", b"PK"), ("model.h5", b""), ("weights.pth", b"\x89HDF\r\n\x1a\n")],
)
def test_file_of_keras_is_answered_with_the_commands_that_make_onnx(
    name: str, start: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(start)
    with pytest.raises(
        CheckpointError,
        match=rf"keras\.models\.load_model\('{name}'\).*tf2onnx.*convoy adopt model",
    ):
        read_checkpoint(tmp_path / name)


def test_onnx_is_answered_with_the_command_that_serves_it(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"ONNX and no checkpoint: run `convoy adopt mine\.o"):
        read_checkpoint(tmp_path / "mine.onnx")


@pytest.mark.parametrize("form", ["zip", "older"])
def test_half_a_file_is_refused_in_one_line(
    form: str, random_lenet5: Loaded, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    state = dict(random_lenet5.network.state_dict())
    torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    for size in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="is not a state dict") as raised:
            read_checkpoint(path)
        assert "\n" not in str(raised.value)
