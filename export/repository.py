"""The model repository: what a version's folder holds, and how it comes to be there.

    NAME.vN/   config.pbtxt   what Triton must know; parameters["convoy.v1.Model"]: all other facts
               labels.txt     one a line, for Triton's own classification extension
               1/model.onnx

A build makes the whole folder as `NAME.vN.staging`, which nothing serves, and publishes it by one
rename to `NAME.vN`, a number that was never used before. A published folder never changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import (
    TYPE_FP32,
    TYPE_INT32,
    TYPE_UINT8,
    ModelConfig,
    ModelDynamicBatching,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
    ModelParameter,
)

from convoy.v1 import classifier_pb2 as pb
from export.errors import RepositoryError

FACTS_KEY = "convoy.v1.Model"
MODEL_FILE = Path("1", "model.onnx")


# ------------------------------------------------------------------------------ what a folder holds


def facts_json(model: pb.Model) -> dict[str, Any]:
    """The facts as they stand in config.pbtxt, with the digest of the manifest filled in."""
    facts: dict[str, Any] = json_format.MessageToDict(model, preserving_proto_field_name=True)
    facts["manifest_digest"] = manifest_digest(facts["manifest"])
    return facts


def manifest_digest(manifest: dict[str, Any]) -> str:
    """sha256 of the manifest's JSON: keys sorted, no spaces, all characters as they are, UTF-8."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def labels_text(labels: Sequence[pb.Label]) -> str:
    return "".join(f"{label.name}\n" for label in labels)


def config(model: pb.Model, max_batch_size: int) -> ModelConfig:
    """Without a name, so that the folder's counts; without queue policies, which stall Triton's
    batcher, and without preferred batch sizes, which give surprising batches."""
    taken = model.input
    facts = json.dumps(facts_json(model), ensure_ascii=False, sort_keys=True)  # maps have no order
    return ModelConfig(
        backend="onnxruntime",
        max_batch_size=max_batch_size,
        input=[
            ModelInput(
                name="image",
                data_type=TYPE_UINT8,
                dims=[taken.height, taken.width, taken.channels],
            )
        ],
        output=[
            ModelOutput(
                name="probabilities",
                data_type=TYPE_FP32,
                dims=[len(model.labels)],
                label_filename="labels.txt",
            ),
            ModelOutput(name="batch_size", data_type=TYPE_INT32, dims=[1]),
        ],
        instance_group=[ModelInstanceGroup(count=1)],
        dynamic_batching=ModelDynamicBatching(),
        parameters={FACTS_KEY: ModelParameter(string_value=facts)},
    )


def write(folder: Path, model: pb.Model, max_batch_size: int) -> None:
    """config.pbtxt and labels.txt, beside the model's file."""
    text = text_format.MessageToString(config(model, max_batch_size), as_utf8=True)
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    (folder / "labels.txt").write_text(labels_text(model.labels), encoding="utf-8")


# ------------------------------------------------------------------------------ stage and publish


@dataclass
class Staging:
    """A version in the making."""

    folder: Path  # NAME.vN.staging
    published: Path  # NAME.vN, where it will be
    replace: bool  # whether that is there already, to be rebuilt

    @property
    def model_path(self) -> Path:
        return self.folder / MODEL_FILE

    def publish(self) -> None:
        """One rename; one that is rebuilt steps aside just before."""
        aside = self.published.with_name(f"{self.published.name}.replaced")
        if self.replace and self.published.exists():
            self.published.rename(aside)
        self.folder.rename(self.published)
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def staging(repository: Path, name: str, *, replace: bool = False) -> Iterator[Staging]:
    """A fresh staging folder for the next version, or for the highest one anew (`replace`).

    What is not published when the block ends is deleted, and so is what an earlier build that was
    killed has left. One build of a model at a time: a lock, which ends with its process, tells the
    folder of a build at work from one that was left.

    Raises:
        RepositoryError: the repository cannot be written, or another build of the model is at work.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
        lock = FileLock(repository / f".{name}.lock", timeout=0)
        with lock:
            _clear(repository, name)
            highest = highest_version(repository, name)
            number = max(1, highest if replace else highest + 1)
            published = repository / f"{name}.v{number}"
            folder = published.with_name(f"{published.name}.staging")
            started = Staging(folder, published, replace)
            started.model_path.parent.mkdir(parents=True)
            try:
                yield started
            finally:
                _clear(repository, name)
    except Timeout as error:
        raise RepositoryError(
            f"Another build of {name} is at work in {repository}: wait until it has ended."
        ) from error
    except OSError as error:
        raise RepositoryError(
            f"Cannot write to the model repository {repository}: {error.strerror or error}; "
            "name another with --repository or CONVOY_REPOSITORY."
        ) from error


def highest_version(repository: Path, name: str) -> int:
    """The highest number ever used, withdrawn versions included; 0 where there is none."""
    pattern = re.compile(rf"{re.escape(name)}\.v([1-9][0-9]*)(\.withdrawn)?")
    matches = (pattern.fullmatch(folder.name) for folder in repository.iterdir())
    return max((int(match[1]) for match in matches if match), default=0)


def _clear(repository: Path, name: str) -> None:
    """Deletes what builds of this model have left; called with its lock held."""
    pattern = re.compile(rf"{re.escape(name)}\.v[1-9][0-9]*\.(staging|replaced)")
    for folder in repository.iterdir():
        if pattern.fullmatch(folder.name):
            shutil.rmtree(folder)
