"""The interface between the gateway and what runs the models.

A runner is one place where models run: this process, or one Triton. Names are folders of the model
repository, such as `resnet152.v3`. Every runner passes the same tests
(`tests/server/runners/test_conformance.py`): same pixels in, same probabilities out, same errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from convoy.v1 import classifier_pb2 as pb

FACTS_KEY = "convoy.v1.Model"
POLL_INTERVAL_S = 1.0  # between two looks at a runner's index
MAX_LOAD_S = 120.0  # that a version may take to load
# The shipped ones have 50 kB, of which golden images are the most; 20,000 labels are 1 MB.
MAX_CONFIG_BYTES = 8 << 20
MAX_LABELS = 100_000
MAX_SIDE = 4096  # of the image that a network reads, in pixels


# What changes with the files of a version: their names, sizes and times. None: the runner cannot
# see them, as with a Triton on another machine.
Fingerprint = tuple[tuple[str, int, int], ...] | None


class RepositoryLost(Exception):
    """The repository is missing, unreadable or empty: nobody withdrew what it held. The message
    says why.
    """


class RepositoryEmpty(RepositoryLost):
    """It holds no version, and no trace of one. It may be that nothing was published yet."""


class LoadFailed(Exception):
    """A version could not be loaded; the message says why, in one sentence."""


class Hung(LoadFailed):
    """It is also still running, and cannot be ended: its thread is abandoned."""


def parse_facts(config: model_config_pb2.ModelConfig) -> pb.Model:
    """The facts that a build wrote into config.pbtxt; fields of a newer contract are ignored.

    Raises:
        LoadFailed: there are none, they cannot be read, or are out of proportion.
    """
    if FACTS_KEY not in config.parameters:
        raise LoadFailed(
            f'config.pbtxt has no parameter "{FACTS_KEY}": build the model with export/build.py'
        )
    text = config.parameters[FACTS_KEY].string_value
    if len(text) > MAX_CONFIG_BYTES:
        raise LoadFailed(
            f'config.pbtxt, parameter "{FACTS_KEY}": {len(text)} characters, '
            f"at most {MAX_CONFIG_BYTES} are allowed"
        )
    try:
        facts = json_format.Parse(text, pb.Model(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise LoadFailed(f'config.pbtxt, parameter "{FACTS_KEY}": {error}') from error
    check_preprocessing(text)
    check_facts(facts)
    return facts


def check_preprocessing(facts: str) -> None:
    """
    Raises:
        LoadFailed: the preprocessing has fields or values of a newer contract, without which the
            network would see other pixels.
    """
    try:
        json_format.ParseDict(json.loads(facts).get("preprocessing", {}), pb.Preprocessing())
    except json_format.ParseError as error:
        raise LoadFailed(
            f"its preprocessing is not known here ({str(error).splitlines()[0]}): update the "
            "gateway, or build the model again"
        ) from error


def check_facts(facts: pb.Model) -> None:
    photo, digit = facts.preprocessing.photo, facts.preprocessing.digit
    if len(facts.labels) > MAX_LABELS:
        raise LoadFailed(f"it has {len(facts.labels)} labels, at most {MAX_LABELS} are allowed")
    if (side := max(photo.resize, photo.crop, digit.size, digit.box)) > MAX_SIDE:
        raise LoadFailed(f"it reads images of {side} pixels a side, at most {MAX_SIDE} are allowed")
    check_photo(photo)


def check_photo(photo: pb.Photo) -> None:
    """
    Raises:
        LoadFailed: no picture can be prepared like that.
    """
    is_sampled = photo.HasField("antialias") and not photo.antialias
    if is_sampled and photo.interpolation not in (pb.BILINEAR, pb.BICUBIC, pb.NEAREST):
        name = pb.Interpolation.Name(photo.interpolation)
        raise LoadFailed(f"its preprocessing is {name} without antialiasing, which does not exist")
    if len(photo.fill) not in (0, 3) or not all(0 <= level <= 255 for level in photo.fill):
        raise LoadFailed(f"its preprocessing fills with {list(photo.fill)}, not three of 0 to 255")


@dataclass(frozen=True)
class LoadedModel:
    """What a runner knows of a version that it has loaded."""

    facts: pb.Model  # from config.pbtxt, parameters["convoy.v1.Model"]
    runtime: str  # "onnxruntime", "triton onnxruntime"
    device: str  # "cpu" or "gpu"
    max_batch_size: int

    @cached_property
    def labels(self) -> Sequence[pb.Label]:
        """A list: a repeated field would make a new object each time that one is read."""
        return list(self.facts.labels)

    @cached_property
    def thresholds(self) -> npt.NDArray[np.float32] | None:
        """K scores from which on a class is answered; None if no label has a threshold.

        In float32, as scores are: 0.7 in float64 is above 0.7 in float32.
        """
        if not any(label.HasField("threshold") for label in self.labels):
            return None
        return np.array([label.threshold for label in self.labels], np.float32)

    @cached_property
    def served(self) -> pb.Served:
        """What all answers of the version say of their origin."""
        return pb.Served(
            runtime=self.runtime,
            precision=self.facts.manifest.precision,
            device=self.device,
            weights=self.facts.manifest.weights.source,
            manifest_digest=self.facts.manifest_digest,
        )


@dataclass(frozen=True)
class Inference:
    """The answer for the images of one request."""

    probabilities: npt.NDArray[np.float32]  # N×K
    batch_size: int  # images computed together, those of other requests included
    queue_us: int | None = None  # None: the runner does not report it
    compute_us: int | None = None
    # What else was asked for, by the name of the graph's output; N rows each.
    outputs: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


class Runner(Protocol):
    """A place where models run."""

    async def index(self) -> dict[str, bool]:
        """The names in the repository, each with whether it is loaded here and can answer.

        Raises:
            RepositoryLost: the runner can be reached and does not see them.
            RunnerUnavailable: the runner cannot be reached.
        """

    async def fingerprint(self, name: str) -> Fingerprint:
        """What changes when the files of a version do, loaded or not."""

    async def load(self, name: str) -> LoadedModel:
        """Loads a version of the repository, unless it is loaded already.

        Raises:
            LoadFailed: there is no such folder, or its config.pbtxt or its model is invalid.
            RunnerUnavailable: the runner cannot be reached.
        """

    async def unload(self, name: str) -> None:
        """Unloads a version once its work is finished. It need not be loaded.

        Raises:
            RunnerUnavailable: the runner cannot be reached.
            Hung: its work does not end. It is unloaded all the same.
        """

    async def infer(
        self,
        name: str,
        images: npt.NDArray[np.uint8],
        timeout_s: float | None = None,
        outputs: Sequence[str] = (),
    ) -> Inference:
        """Probabilities of images, N×H×W×C in uint8, N at most the version's max_batch_size.

        `outputs` names further outputs of the graph. Those that nobody names are not computed where
        the runner can leave them out, and never sent.

        Cancelling the task removes images that are still queued, if the runner can do that.

        Raises:
            ModelNotReady: the version is not loaded here, or was unloaded a moment ago.
            RunnerUnavailable: the runner cannot be reached, or was lost with the images.
            DeadlineExceeded: timeout_s passed.
            InferenceFailed: the runtime failed on these images.
        """

    async def close(self) -> None:
        """Releases processes, threads and memory."""
