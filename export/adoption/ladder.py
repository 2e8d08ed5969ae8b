"""The ladder of an adopted file: itself → in the contract's graph → served."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from convoy.v1 import classifier_pb2 as pb
from export.adoption.classifier import Classifier, type_name
from export.adoption.examples import choose
from export.adoption.folding import fold
from export.adoption.given import given_runtime
from export.adoption.onnx_file import tensors
from export.adoption.options import AdoptOptions
from export.adoption.precision import in_fp16
from export.adoption.sessions import first_line
from export.adoption.wrapper import Scores, opset, wrap
from export.build_cache import Stage, Stages
from export.catalog import Activation
from export.checkpoints.download import Downloads
from export.conversion.evidence import evidence_facts
from export.errors import AdoptionError, ExportError, ParityError
from export.files import file_sha256
from export.preparation.reference import reference_pixels
from export.progress import Reporter
from export.proof.golden import photo_goldens, sample_photos
from export.proof.ladder import FP16, Ladder
from export.proof.runtimes import Runtime, onnx_runtime
from export.samples.images import PROOF_SEED, Pixels, Probabilities, Samples, samples

if TYPE_CHECKING:
    from export.conversion.to_int8 import Target

FP16_WHOLE = "float16, with the file's own last operator; normalisation in float32"
REMEDIES = {
    "fp16": "Leave out --fp16, and the file is served as it is.",
    "int8": "Give --calibration a few hundred pictures like those that will be served; if that is "
    "not enough, take --fp16, or leave out --int8.",
}
SUM_TOLERANCE = 0.01  # of an image's probabilities; of those in float16 each is off by up to 5e-4


class AdoptedLadder(Ladder):
    """Wraps a file, and proves what is served of it with the file."""

    def __init__(
        self,
        options: AdoptOptions,
        labels: Sequence[pb.Label],
        stages: Stages,
        reporter: Reporter,
    ) -> None:
        super().__init__(options, labels, stages, Downloads(), reporter)
        self._adopted = options

    def golden_images(
        self, last: Stage, model: pb.Model, labels: Sequence[pb.Label]
    ) -> list[pb.GoldenImage]:
        """
        Raises:
            AdoptionError: they are answered alike.
        """
        examples = self._adopted.examples
        goldens = photo_goldens(
            self._network,
            model.preprocessing.photo,
            labels,
            self._runtime(last),
            examples or sample_photos(),
        )
        return choose(goldens, self._adopted.given.file.name, are_samples=not examples)

    @cached_property
    def _images(self) -> Samples:
        """Crops of the sample photos, and the examples."""
        count = max(self._network.proof_images, self._options.max_batch_size)
        crops = samples(self._network, count, PROOF_SEED)
        photo = self._network.preprocessing.photo
        examples = self._adopted.examples
        pixels = [reference_pixels(content, photo) for content in examples.values()]
        return Samples((*crops.names, *examples), np.stack([*crops.pixels, *pixels]))

    def _original(self) -> Stage:
        """The file in the contract's graph.

        Raises:
            ExportError: the file cannot be wrapped, or its answers differ then.
        """
        return self._stages.get_or_make(
            self._key(self._options.source_sha256, "adopted"), self._wrap
        )

    def _write_fp16(self, path: Path) -> str:
        options = self._adopted
        self._reporter.step("Graph around the file in float16")
        given = in_fp16(options.given)
        wrapped = wrap(given, self._network, options.scores, options.activation)
        path.write_bytes(wrapped.SerializeToString(deterministic=True))
        return (FP16 if options.scores == "logits" else FP16_WHOLE).format(
            activation=options.activation
        )

    def _write_int8(self, fp32: Path, path: Path, images: Pixels, target: Target) -> None:
        with tempfile.TemporaryDirectory(prefix="convoy-int8-") as folder:
            folded = Path(folder, self._adopted.given.file.name)
            fold(fp32, folded, folded.name)
            super()._write_int8(folded, path, images, target)

    def _in_precision(self, precision: str, recipe: str, fp32: Stage, path: Path) -> pb.Model:
        """
        Raises:
            ParityError: it answers too differently; the message says what may help.
        """
        try:
            return super()._in_precision(precision, recipe, fp32, path)
        except ParityError as error:
            raise ParityError(f"{error} {REMEDIES[precision]}") from error

    def _wrap(self, path: Path) -> pb.Model:
        given, network, scores = self._adopted.given, self._network, self._adopted.scores
        self._reporter.step("Graph around the file")
        activation = self._options.activation
        wrapped = wrap(given, network, scores, activation)
        path.write_bytes(wrapped.SerializeToString(deterministic=True))
        reference = given_runtime(given, network, scores, activation)
        _check_probabilities(given, reference, self._images, activation)
        rung = self._compare_in_batches(reference, onnx_runtime(path))
        precision = self._adopted.own_precision
        return pb.Model(
            preprocessing=network.preprocessing,
            evidence=evidence_facts(path),
            manifest=pb.Manifest(
                weights=pb.Weights(source="file", sha256=given.file.sha256, file=given.file.name),
                onnx_sha256=file_sha256(path),
                onnx_opset=opset(wrapped),
                precision=precision,
                activation=self._options.manifest_activation,
                precision_recipe=f"{precision}, as in the file",
                parameters=_count_parameters(given.file.model),
                adopted=adopted_facts(given, scores),
            ),
            parity=[rung],
        )

    def _compare_in_batches(self, reference: Runtime, candidate: Runtime) -> pb.ParityRung:
        """
        Raises:
            AdoptionError: the graph fails for more than one picture.
            ParityError: its answers differ.
        """
        try:
            own = self._adopted.own_precision
            return self._compare("file → ONNX", reference, candidate, own)
        except ExportError:
            raise
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise AdoptionError(
                f"{self._adopted.given.file.name} takes batches of any size by its own account, "
                f"and fails for some: {first_line(error)}. Give --max-batch 1, or export it "
                "with a dynamic batch axis."
            ) from error


def _check_probabilities(
    given: Classifier, reference: Runtime, images: Samples, activation: Activation
) -> None:
    """
    Raises:
        AdoptionError: an answer is no distribution over the classes.
    """
    answers = reference.answer(images.pixels)
    for name, answer in zip(images.names, answers, strict=True):
        each_for_itself = activation == "sigmoid" and answer.min() >= 0 and answer.max() <= 1
        if not (each_for_itself or _is_distribution(answer)):
            raise AdoptionError(
                f"{given.file.name} gives {answer.min():.3g} to {answer.max():.3g} for {name}, "
                f"which sum to {answer.sum():.3g}: probabilities are 0 to 1 and sum to 1. Give "
                "--outputs logits if softmax is to follow, or --activation sigmoid if each is for "
                "itself."
            )


def _is_distribution(answer: Probabilities) -> bool:
    return bool(
        np.isfinite(answer).all()
        and answer.min() >= -SUM_TOLERANCE
        and abs(float(answer.sum()) - 1) <= SUM_TOLERANCE
    )


# ------------------------------------------------------------------------------ facts


def _count_parameters(model: onnx.ModelProto) -> int:
    """The numbers in its constants, without single ones and shapes."""
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8)
    return sum(
        int(np.prod(tensor.dims))
        for tensor in tensors(model.graph)
        if tensor.data_type in floats and tensor.dims
    )


def adopted_facts(given: Classifier, scores: Scores) -> pb.Adopted:
    file = given.file
    return pb.Adopted(
        file=file.name,
        sha256=file.sha256,
        external_data=file.external_data,
        input=given.input,
        layout=given.layout,
        type=type_name(given.element_type),
        batch=given.batch,
        output=given.output,
        scores=scores,
        opset=opset(file.model),
        producer=f"{file.model.producer_name} {file.model.producer_version}".strip(),
    )
