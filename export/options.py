"""What a build was asked for, and the hash of everything that it depends on."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

from export.build_cache import code_sha256, digest, file_sha256, package_versions
from export.catalog import Network
from export.conversion.calibration import calibration_sha256

Precision = Literal["fp32", "fp16", "int8"]
Format = Literal["onnx", "plan", "rtx"]
PUBLISHED = re.compile(r"imagenet(1k_v\d+)?")
TRAINED = Path(__file__).with_name("weights")  # by export/train.py


@dataclass(frozen=True)
class Options:
    network: Network
    precision: Precision
    weights: str  # "imagenet", "imagenet1k_v1", "digits", "random" or the path of a file
    seed: int
    repository: Path
    replace: bool = False
    labels: Path | None = None  # of a user's own classes
    published_as: str | None = None  # a name other than the network's
    weights_url: str | None = None  # of published weights, where not PyTorch's own server
    format: Format = "onnx"
    calibration: Path | None = None  # the folder of pictures that int8 is calibrated on
    max_batch: int | None = None  # images at once; None: as the catalog says
    opt_batch: int | None = None  # the number that an engine is fastest for; None: the largest
    optimization_level: int | None = None  # of an engine, 0 to 5; None: TensorRT's own choice
    keep: int | None = None  # how many versions stay; None: all
    force: bool = False  # build although an identical version is published
    triton: str | None = None  # HOST:PORT of one that serves the repository, to prove a plan with
    output: Path = Path("build", "rtx")  # where an RTX engine goes

    @property
    def name(self) -> str:
        return self.published_as or self.network.name

    @property
    def is_random(self) -> bool:
        return self.weights == "random"

    @property
    def max_batch_size(self) -> int:
        return self.max_batch or self.network.max_batch_size

    @property
    def command(self) -> str:
        """What makes the same version again; it names no path of this machine."""
        words = ["python", "export/build.py", self.network.name]
        words += [f"--{self.precision}"] if self.precision != "fp32" else []
        words += ["--calibration", self.calibration.name] if self.calibration else []
        words += ["--format", self.format] if self.format != "onnx" else []
        words += ["--weights", Path(self.weights).name]
        words += ["--seed", str(self.seed)] if self.is_random else []
        words += ["--labels", self.labels.name] if self.labels else []
        words += ["--name", self.published_as] if self.published_as else []
        words += ["--max-batch", str(self.max_batch)] if self.max_batch else []
        words += ["--opt-batch", str(self.opt_batch)] if self.opt_batch else []
        if self.optimization_level is not None:
            words += ["--optimization-level", str(self.optimization_level)]
        return shlex.join(words)

    # ------------------------------------------------------------------------ what it depends on

    @cached_property
    def source_sha256(self) -> str:
        """Of what decides the graph in fp32: network, weights, labels, packages, code."""
        row = {
            field.name: str(getattr(self.network, field.name))
            for field in fields(self.network)
            if field.name != "labels"  # a function, of the code
        }
        labels = file_sha256(self.labels) if self.labels else ""
        return digest(row, self._weights, labels, package_versions(), code_sha256())

    @cached_property
    def sha256(self) -> str:
        """Of all that decides the version, where it is published left out.

        Raises:
            CalibrationError: there are no pictures to calibrate on.
        """
        calibration = calibration_sha256(self.calibration) if self.calibration else ""
        batches = [self.max_batch_size, self.opt_batch]
        return digest(self.source_sha256, self.command, self.format, calibration, batches)

    @property
    def _weights(self) -> list[str]:
        """Where they are not to be found, loading them says so."""
        if self.is_random:
            return ["random", str(self.seed)]
        if PUBLISHED.fullmatch(self.weights):
            # The names of published files end in the beginnings of their hashes.
            return [self.weights, *(checkpoint.file for checkpoint in self.network.checkpoints)]
        trained = TRAINED / f"{self.network.name}.pth"
        paths = [trained, trained.with_suffix(".json")] if self.weights == "digits" else []
        paths = [path for path in paths or [Path(self.weights)] if path.is_file()]
        return [self.weights] + [
            entry for path in paths for entry in (path.name, file_sha256(path))
        ]
