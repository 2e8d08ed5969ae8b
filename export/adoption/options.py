"""What `convoy adopt` was asked for, and the hash of everything that it depends on."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from convoy.v1 import classifier_pb2 as pb
from export.adoption.classifier import Classifier
from export.adoption.examples import read_examples
from export.adoption.precision import precision_of
from export.adoption.wrapper import Scores
from export.build_cache import code_sha256, digest, package_versions
from export.files import file_sha256, shown_name
from export.options import Options, Precision


@dataclass(frozen=True, kw_only=True)
class AdoptOptions(Options):
    """`network` is a row for this file alone; `weights` is its path."""

    given: Classifier
    scores: Scores
    outputs: str | None = None  # as it was typed
    examples_path: Path | None = None
    found: pb.PreparationOrigin | None = None  # where `preparation` comes from; None: it was typed

    @cached_property
    def examples(self) -> dict[str, bytes]:
        """
        Raises:
            AdoptionError: they cannot be read.
        """
        return read_examples(self.examples_path) if self.examples_path else {}

    @cached_property
    def own_precision(self) -> Precision:
        """The file's."""
        return precision_of(self.given.file.model)

    def record_preparation(self, model: pb.Model) -> None:
        """What the file says is not assumed: its size, and that pixels go in as they are."""
        super().record_preparation(model)
        if self.found:
            model.manifest.preparation.CopyFrom(self.found)
            return
        known = {"crop", "mean", "std"} if self.given.takes_pixels else {"crop"}
        origin = model.manifest.preparation
        origin.assumed[:] = [aspect for aspect in origin.assumed if aspect not in known]

    @property
    def command(self) -> str:
        words = ["convoy", "adopt", shown_name(Path(self.weights))]
        words += [f"--{self.precision}"] if self.precision != self.own_precision else []
        values = {
            "--calibration": self.calibration,
            "--labels": self.labels,
            "--outputs": self.outputs,
            "--activation": self.manifest_activation or None,
            "--examples": self.examples_path,
            "--evaluate": self.evaluate,
            "--max-drop": self.max_drop,
            "--name": self.published_as,
            "--max-batch": self.max_batch,
        }
        for flag, value in values.items():
            if value is not None:
                words += [flag, shown_name(value) if isinstance(value, Path) else str(value)]
        return shlex.join(words + self.preparation.words)

    @cached_property
    def source_sha256(self) -> str:
        """Hash of what decides the graph and its golden images."""
        row = [str(self.network.preprocessing), self.network.mean, self.network.std]
        file = self.given.file
        return digest(
            [file.sha256, file.external_data, self.scores, self.activation],
            row,
            file_sha256(self.labels) if self.labels else "",
            {name: digest(content.hex()) for name, content in self.examples.items()},
            package_versions(),
            code_sha256(),
        )
