"""What a build was asked for, and the hash of everything that it depends on."""

from __future__ import annotations

import shlex
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

from convoy.v1 import classifier_pb2 as pb
from export import cli_options as cli
from export.build_cache import code_sha256, digest, package_versions
from export.catalog import Activation, Network
from export.checkpoints.choices import Choices
from export.checkpoints.download import is_published
from export.conversion.calibration import calibration_sha256
from export.errors import CalibrationError
from export.evaluation.truth import truth_sha256
from export.files import TRAINED_WEIGHTS, file_sha256, shown_name
from export.preparation.options import AS_PUBLISHED, PreparationOptions

Precision = Literal["fp32", "fp16", "int8"]
Format = Literal["onnx", "plan", "rtx"]

DEFAULT_OPT_BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class TypedOptions:
    """Options that a build takes as they were typed; cli_options explains them."""

    weights_key: cli.WeightsKey = None
    transform_input: cli.TransformInput = None
    weights_url: cli.WeightsUrl = None
    labels: cli.Labels = None
    published_as: cli.ModelName = None
    calibration: cli.Calibration = None
    evaluate: cli.Evaluate = None
    max_drop: cli.MaxDrop = None
    max_batch: cli.MaxBatch = None
    opt_batch: cli.OptBatch = None
    optimization_level: cli.OptimizationLevel = None
    keep: cli.Keep = None
    triton: cli.Triton = None
    output: cli.Output = Path("build", "rtx")
    force: cli.Force = False
    replace: cli.Replace = False


NOTHING_TYPED = TypedOptions()


@dataclass(frozen=True)
class Options(TypedOptions):
    network: Network
    precision: Precision
    weights: str  # "imagenet", "imagenet1k_v1", "digits", "random" or the path of a file
    seed: cli.Seed
    repository: Path
    format: Format = "onnx"
    activation: Activation = "softmax"
    preparation: PreparationOptions = AS_PUBLISHED  # which `network` has already

    @property
    def name(self) -> str:
        return self.published_as or self.network.name

    @property
    def is_random(self) -> bool:
        return self.weights == "random"

    @property
    def manifest_activation(self) -> str:
        """Empty for softmax, so that manifests stay as they were."""
        return "" if self.activation == "softmax" else self.activation

    @property
    def choices(self) -> Choices:
        return Choices(self.weights_key, self.transform_input, self.activation)

    @property
    def max_batch_size(self) -> int:
        network = self.network
        default = network.plan_max_batch_size if self.format == "plan" else network.max_batch_size
        return self.max_batch or default

    @property
    def opt_batch_size(self) -> int:
        """Of an engine. A GPU is nearly as fast with 32 images as with more, which come together
        less often.
        """
        return self.opt_batch or min(self.max_batch_size, DEFAULT_OPT_BATCH_SIZE)

    def record_preparation(self, model: pb.Model) -> None:
        self.preparation.given.record(model, self.network)

    @property
    def command(self) -> str:
        """Makes the same version again; it names no path of this machine."""
        words = ["python", "export/build.py", self.network.name]
        words += [f"--{self.precision}"] if self.precision != "fp32" else []
        values = {
            "--calibration": self.calibration,
            "--evaluate": self.evaluate,
            "--max-drop": self.max_drop,
            "--format": None if self.format == "onnx" else self.format,
            "--weights": Path(self.weights),
            "--weights-key": self.weights_key,
            "--seed": self.seed if self.is_random else None,
            "--activation": None if self.activation == "softmax" else self.activation,
            "--labels": self.labels,
            "--name": self.published_as,
            "--max-batch": self.max_batch,
            "--opt-batch": self.opt_batch,
            "--optimization-level": self.optimization_level,
        }
        for flag, value in values.items():
            if value is not None:
                words += [flag, shown_name(value) if isinstance(value, Path) else str(value)]
        if self.transform_input is not None:
            words.append("--transform-input" if self.transform_input else "--no-transform-input")
        return shlex.join(words + self.preparation.words)

    # ------------------------------------------------------------------------ what it depends on

    @cached_property
    def source_sha256(self) -> str:
        """Hash of what decides the graph in fp32: network, weights, labels, packages, code."""
        row = {
            field.name: str(getattr(self.network, field.name))
            for field in fields(self.network)
            if field.name != "labels"  # a function, which is part of the code
        }
        labels = file_sha256(self.labels) if self.labels else ""
        return digest(
            row,
            self._weights,
            astuple(self.choices),
            labels,
            self.preparation.file_sha256,
            package_versions(),
            code_sha256(),
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of all that decides the version; where it is published is left out.

        Raises:
            CalibrationError, EvaluationError: there are no pictures.
        """
        calibration = calibration_sha256(self.calibration) if self.calibration else ""
        pictures = [calibration, self.evaluation_sha256]
        batches = [self.max_batch_size, self.opt_batch_size]
        return digest(self.source_sha256, self.command, self.format, pictures, batches)

    def check_pictures(self) -> None:
        """
        Raises:
            CalibrationError, EvaluationError: as sha256.
        """
        _ = self.sha256

    @cached_property
    def evaluation_sha256(self) -> str:
        """
        Raises:
            EvaluationError: there are no pictures to evaluate with.
        """
        return truth_sha256(self.evaluate) if self.evaluate else ""

    @property
    def _weights(self) -> list[str]:
        """The weights' name and hashes. A file that is missing is reported when it is loaded."""
        if self.is_random:
            return ["random", str(self.seed)]
        if is_published(self.weights):
            # The names of published files end with the beginning of their hashes.
            return [self.weights, *(checkpoint.file for checkpoint in self.network.checkpoints)]
        trained = TRAINED_WEIGHTS / f"{self.network.name}.pth"
        paths = [trained, trained.with_suffix(".json")] if self.weights == "digits" else []
        paths = [path for path in paths or [Path(self.weights)] if path.is_file()]
        return [self.weights] + [
            entry for path in paths for entry in (shown_name(path), file_sha256(path))
        ]


def select_precision(fp16: bool, int8: bool, calibration: Path | None) -> Precision:
    """
    Raises:
        CalibrationError: --calibration is missing for int8, or given without it.
    """
    if int8 and fp16:
        raise CalibrationError("Give --fp16 or --int8, not both.")
    if int8 and calibration is None:
        raise CalibrationError(
            "--int8 needs --calibration DIR, a folder with a few hundred pictures like those that "
            "will be served."
        )
    if calibration and not int8:
        raise CalibrationError("--calibration is only for --int8: give both, or neither.")
    return "int8" if int8 else "fp16" if fp16 else "fp32"
