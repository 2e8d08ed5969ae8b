"""The files of a model repository, as a runner on this machine reads them.

Who may write into the repository need not mean well: what is no regular file, such as a FIFO or a
device, is never opened, and sizes are bounded before anything is read.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from server.folder_names import FOLDER_NAME, TRACE
from server.runners.base import (
    MAX_CONFIG_BYTES,
    Fingerprint,
    LoadFailed,
    RepositoryEmpty,
    RepositoryLost,
)

CONFIG_FILE, LABELS_FILE = "config.pbtxt", "labels.txt"
MODEL_FILE = "1/model.onnx"
VERSION_FOLDER = "1"
MAX_MODEL_BYTES = 2**31  # of an ONNX file, by its format; weights may lie in other files
MAX_FILES = 1000  # of a version
# Far above what helps, far below what harms the machine.
MAX_INSTANCES, MAX_THREADS, MAX_BATCH_SIZE = 64, 256, 4096


def list_folders(repository_path: Path) -> list[str]:
    """The names of the versions in the repository; other folders and files are ignored.

    Raises:
        RepositoryLost: as in `Runner.index`.
    """
    try:
        names = [path.name for path in repository_path.iterdir()]
    except OSError as error:
        raise RepositoryLost(
            f"the model repository cannot be read: {error.strerror or error}"
        ) from error
    if not any(map(TRACE.fullmatch, names)):
        raise RepositoryEmpty("the model repository is empty")
    return [name for name in names if FOLDER_NAME.fullmatch(name)]


def read_fingerprint(path: Path) -> Fingerprint:
    """Of the files of a version; one that is missing has none."""
    found = []
    with contextlib.suppress(OSError):
        for file in sorted(list_files(path)):
            status = file.stat()
            found.append((str(file.relative_to(path)), status.st_size, status.st_mtime_ns))
    return tuple(found)


def list_files(path: Path) -> Iterator[Path]:
    """What is in a version's folder, and in its folder 1/, no more than MAX_FILES."""
    folders = [folder for folder in (path, path / VERSION_FOLDER) if folder.is_dir()]
    files = itertools.chain.from_iterable(folder.iterdir() for folder in folders)
    return itertools.islice((file for file in files if file not in folders), MAX_FILES)


def check_files(path: Path) -> None:
    """Without opening any.

    Raises:
        LoadFailed: one is no regular file, or is too large.
    """
    limits = {
        path / CONFIG_FILE: MAX_CONFIG_BYTES,
        path / LABELS_FILE: MAX_CONFIG_BYTES,
        path / MODEL_FILE: MAX_MODEL_BYTES,
    }
    for file in list_files(path):
        shown = f"{path.name}/{file.relative_to(path)}"
        try:
            status = file.stat()
        except OSError as error:
            raise LoadFailed(f"{shown} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise LoadFailed(f"{shown} is not a regular file")
        if status.st_size > limits.get(file, status.st_size):
            raise LoadFailed(
                f"{shown} has {status.st_size} bytes, at most {limits[file]} are allowed"
            )


def read_config(config_path: Path) -> model_config_pb2.ModelConfig:
    """
    Raises:
        LoadFailed: it is missing, invalid, or asks for more than any machine has.
    """
    shown = f"{config_path.parent.name}/{config_path.name}"
    try:
        config = text_format.Parse(read_text(config_path), model_config_pb2.ModelConfig())
    except OSError as error:
        raise LoadFailed(f"{shown} cannot be read: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise LoadFailed(f"{shown} is invalid: {error}") from error
    check_limits(config, shown)
    return config


def read_text(path: Path) -> str:
    """At most MAX_CONFIG_BYTES; `check_files` says if there are more."""
    # A FIFO that took its place since it was checked does not block, and reads as empty.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_CONFIG_BYTES).decode()


def check_limits(config: model_config_pb2.ModelConfig, shown: str) -> None:
    limits = [
        ("instances", sum(group.count or 1 for group in config.instance_group), MAX_INSTANCES),
        ("intra_op_thread_count", thread_count(config), MAX_THREADS),
        ("max_batch_size", config.max_batch_size, MAX_BATCH_SIZE),
    ]
    for name, value, limit in limits:
        if value > limit:
            raise LoadFailed(f"{shown}: {name} is {value}, at most {limit} is allowed")


def thread_count(config: model_config_pb2.ModelConfig) -> int:
    """Threads per computation, a parameter of Triton's onnxruntime backend; 0: one per core."""
    if "intra_op_thread_count" not in config.parameters:
        return 0
    text = config.parameters["intra_op_thread_count"].string_value
    if not text.isdecimal():
        raise LoadFailed(
            f"intra_op_thread_count is {text!r}, must be a whole number, 0 for all cores"
        )
    return int(text[:9])
