"""Checkpoint files: read without running code in them.

Two formats are read: .safetensors, and what torch.save wrote, as a zip or in its older form, with
`weights_only=True`. torch's reader then builds tensors, numbers, text and containers, and refuses
all else. Beside the weights, trainings keep harmless records, such as NumPy's numbers, arguments,
dates and paths: a `Record` that holds nothing stands in for them, so that no code of theirs runs
either.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.serialization import safe_globals

from export.errors import CheckpointError

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")


class Record:
    """Stands in for an object beside the weights; takes and ignores what the file says of it."""

    def __new__(cls, *_: Any) -> Any:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        """Otherwise torch's reader would set attributes that the file names."""


class MappingRecord(Record):
    """Stands in for a kind of dict; torch's reader fills none but Python's own."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class ListRecord(Record):
    def __new__(cls, *_: Any) -> Any:
        return []


# By what stands in for them, the classes and functions by which pickles name harmless records.
# NumPy's module is `core` before 2.0; pathlib's is `_local` in Python 3.13.
HARMLESS: dict[type[Record], tuple[str, ...]] = {
    Record: (
        *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
        *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
        *(f"numpy.{name}" for name in ("dtype", "ndarray")),
        *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        *(
            f"{module}.{pure}{system}Path"
            for module in ("pathlib", "pathlib._local")
            for pure in ("", "Pure")
            for system in ("", "Posix", "Windows")
        ),
        "argparse.Namespace",
        "types.SimpleNamespace",
        "uuid.UUID",
        "torch.torch_version.TorchVersion",
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str")),
    ),
    MappingRecord: (
        "collections.defaultdict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "lightning.fabric.utilities.data.AttributeDict",
    ),
    ListRecord: ("collections.deque",),
}


def read_checkpoint(path: Path) -> Any:
    """What the file holds: tensors in mappings, and what is beside them.

    Raises:
        CheckpointError: the file is damaged, would run code, or is of another kind.
    """
    _refuse_other_kinds(path)
    return _safetensors(path) if path.suffix == ".safetensors" else _torch(path)


def _refuse_other_kinds(path: Path) -> None:
    with path.open("rb") as file:
        is_hdf5 = file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
    if is_hdf5 or path.suffix.lower() in KERAS_SUFFIXES:
        raise CheckpointError(
            f"{path} is a file of Keras, whose network is another than this catalog's: make ONNX "
            "of it where TensorFlow and tf2onnx are installed, with "
            f"`python -c \"import keras; keras.models.load_model('{path.name}').export('saved')\"` "
            "and `python -m tf2onnx.convert --saved-model saved --output model.onnx`, then run "
            "`convoy adopt model.onnx`."
        )
    if path.suffix.lower() == ".onnx":
        raise CheckpointError(
            f"{path} is a network in ONNX and no checkpoint: run `convoy adopt {path.name}`."
        )


def _safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}.") from error


def _torch(path: Path) -> Any:
    records: list[Any] = [(record, name) for record, names in HARMLESS.items() for name in names]
    try:
        with warnings.catch_warnings(), safe_globals(records):
            warnings.simplefilter("ignore")  # of what is refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(_would_run(path, code[1])) from error
        raise CheckpointError(_not_read(path, "torch.save did not write it")) from error
    except Exception as error:  # damaged files end in whatever their bytes lead to
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise CheckpointError(_not_read(path, reason)) from error


def _would_run(path: Path, code: str) -> str:
    return (
        f"{path} holds more than weights and harmless records, and would run {code} when read: "
        "refused; where you trust it and its code is installed, keep the weights alone: "
        f"`content = torch.load('{path.name}', map_location='cpu', weights_only=False)`, then "
        "`torch.save(content['state_dict'], 'weights.pth')`, or `content.state_dict()` of a whole "
        "network."
    )


def _not_read(path: Path, reason: str) -> str:
    return (
        f"{path} is not a state dict that torch reads with weights_only=True ({reason}): give a "
        "whole .pth or .safetensors."
    )
