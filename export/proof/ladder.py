"""The ladder: from the weights to the file that is served, one rung at a time.

    PyTorch fp32 → ONNX fp32 → ONNX in its precision → engine

Each stage makes a file and compares it with the one before. A stage that was made before comes from
the cache (build_cache.py); if all do, not even the weights are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convoy.v1 import classifier_pb2 as pb
from export.build_cache import Stage, Stages, digest
from export.conversion.calibration import calibration_images, calibration_sha256
from export.evaluation.gate import judge_drop, measure
from export.evaluation.truth import Truth
from export.files import cache_path, file_sha256
from export.layers import check_size, macs, parameters
from export.options import Options
from export.progress import Reporter
from export.proof.evidence import compare_evidence
from export.proof.golden import golden_images
from export.proof.parity import compare
from export.proof.private_gateway import private_gateway
from export.proof.runtimes import Runtime, engine_runtime, onnx_runtime, torch_runtime
from export.proof.served import served_rung
from export.repository.config import facts_json
from export.repository.layout import STAGING
from export.samples.images import PROOF_SEED, Pixels, Samples, samples

if TYPE_CHECKING:
    from export.checkpoints.download import Downloads
    from export.checkpoints.load import Loaded
    from export.conversion.engine_header import Library
    from export.conversion.to_int8 import Target

FP32, FP16 = "float32", "float16; normalisation and {activation} in float32"


class Ladder:
    """Builds the file of one version, and proves each stage with the one before."""

    def __init__(
        self,
        options: Options,
        labels: Sequence[pb.Label],
        stages: Stages,
        downloads: Downloads,
        reporter: Reporter,
    ) -> None:
        self._options = options
        self._network = options.network
        self._classes = len(labels)
        self._stages = stages
        self._downloads = downloads
        self._reporter = reporter

    def build(self) -> tuple[Stage, pb.Model]:
        """Builds all stages; returns the last one, and the facts of all.

        Raises:
            ExportError: a stage failed, or two runtimes disagree.
        """
        options, stages = self._options, [self._original()]
        if options.precision != stages[0].facts.manifest.precision:
            convert = {"fp16": self._fp16, "int8": self._int8}[options.precision]
            stages.append(convert(stages[0]))
        if options.format != "onnx":
            stages.append(self._engine(stages[-1]))
        facts = pb.Model()
        for stage in stages:
            facts.MergeFrom(stage.facts)
        self._reference = stages[0]
        return stages[-1], facts

    def evaluate(self, last: Stage, model: pb.Model, labels: Sequence[pb.Label]) -> None:
        """Adds to the manifest how the last stage classifies labelled pictures, if there are any.

        Raises:
            EvaluationError: too many are classified wrongly that are right in fp32, or too few
                were given to know.
        """
        options, reference = self._options, self._reference
        if not options.evaluate:
            return
        self._reporter.step("Evaluation")
        evaluation = measure(
            Truth(options.evaluate),
            labels,
            model.preprocessing,
            self._runtime(last).answer,
            None if last is reference else onnx_runtime(reference.path).answer,
            max_batch_size=options.max_batch_size,
            reporter=self._reporter,
        )
        evaluation.data_sha256 = options.evaluation_sha256
        judge_drop(evaluation, options.max_drop)
        model.manifest.evaluation.CopyFrom(evaluation)

    def golden_images(
        self, last: Stage, model: pb.Model, labels: Sequence[pb.Label]
    ) -> list[pb.GoldenImage]:
        """Returns golden images with the answers of the last stage.

        Raises:
            ParityError: the gateway's preprocessing changes what the network reads.
        """
        return golden_images(
            self._network,
            model.preprocessing,
            labels,
            self._runtime(last),
            is_random=self._options.is_random,
        )

    def served(self, last: Stage, model: pb.Model, folder: Path) -> list[pb.ParityRung]:
        """Proves the staged folder behind a private gateway; a plan only with a Triton for it.

        Raises:
            ParityError, ServedError: the served answers differ from the file's, or there are none.
        """
        options = self._options
        if options.format == "plan" and not options.triton:
            return []
        version = folder.name.removesuffix(STAGING).rpartition(".v")[2]
        served = pb.Model(name=options.name, version=version)
        served.MergeFrom(model)
        served.manifest_digest = facts_json(model)["manifest_digest"]
        with private_gateway(folder, triton=options.triton) as client:
            rung = served_rung(
                client,
                served,
                self._runtime(last),
                "engine" if options.format == "plan" else f"ONNX {options.precision}",
                max_batch_size=options.max_batch_size,
            )
        return [rung]

    # ------------------------------------------------------------------------ weights and answers

    @cached_property
    def _loaded(self) -> Loaded:
        from export.checkpoints.load import load

        options = self._options
        self._reporter.step(f"Weights: {options.weights}")
        loaded = load(
            self._network,
            options.weights,
            options.seed,
            classes=self._classes,
            choices=options.choices,
            downloads=self._downloads,
        )
        check_size(loaded.network, self._network)
        return loaded

    @cached_property
    def _images(self) -> Samples:
        count = max(self._network.proof_images, self._options.max_batch_size)
        return samples(self._network, count, PROOF_SEED)

    def _runtime(self, stage: Stage) -> Runtime:
        is_plan = self._options.format == "plan"
        return engine_runtime(stage.path) if is_plan else onnx_runtime(stage.path)

    def _compare(
        self,
        name: str,
        reference: Runtime,
        candidate: Runtime,
        tolerance: str,
        *,
        is_judged: bool = True,
    ) -> pb.ParityRung:
        self._reporter.step(f"Parity: {name}")
        rung = compare(
            name,
            reference.answer,
            candidate.answer,
            self._images,
            max_batch_size=self._options.max_batch_size,
            tolerance=self._network.tolerance(tolerance, is_random=self._options.is_random),
            reported_only=not is_judged,
        )
        compare_evidence(
            rung,
            reference.evidence,
            candidate.evidence,
            self._images,
            max_batch_size=self._options.max_batch_size,
        )
        return rung

    # ------------------------------------------------------------------------ the rungs

    def _original(self) -> Stage:
        """In the precision of the weights."""

        def make(path: Path) -> pb.Model:
            from export.conversion.evidence import evidence_facts
            from export.conversion.to_onnx import OPSET

            network, loaded = self._network, self._loaded
            self._export("fp32", path)
            reference = torch_runtime(
                loaded.network,
                network.mean,
                network.std,
                self._options.activation,
                is_bgr=network.is_bgr,
            )
            rung = self._compare("PyTorch fp32 → ONNX fp32", reference, onnx_runtime(path), "fp32")
            return pb.Model(
                preprocessing=loaded.preprocessing,
                evidence=evidence_facts(path),
                manifest=pb.Manifest(
                    network=network.name,
                    paper=network.paper,
                    weights=loaded.weights,
                    accuracy=loaded.accuracy,
                    unfamiliar_threshold=loaded.unfamiliar_threshold,
                    temperature=loaded.temperature,
                    onnx_sha256=file_sha256(path),
                    onnx_opset=OPSET,
                    precision="fp32",
                    precision_recipe=FP32,
                    activation=self._options.manifest_activation,
                    parameters=parameters(loaded.network),
                    macs=macs(loaded.network, network.channels, network.size),
                ),
                parity=[rung],
            )

        return self._stages.get_or_make(self._key(self._options.source_sha256, "fp32"), make)

    def _fp16(self, fp32: Stage) -> Stage:
        def make(path: Path) -> pb.Model:
            recipe = self._write_fp16(path)
            return self._in_precision("fp16", recipe, fp32, path)

        return self._stages.get_or_make(self._key(fp32.key, "fp16"), make)

    def _int8(self, fp32: Stage) -> Stage:
        folder = self._options.calibration
        target: Target = "cpu" if self._options.format == "onnx" else "tensorrt"

        def make(path: Path) -> pb.Model:
            from export.conversion.to_int8 import RECIPES

            self._reporter.step("Calibration: preparing the pictures")
            images = calibration_images(folder, fp32.facts.preprocessing, self._reporter)
            self._reporter.step(f"Export: ONNX int8 for {target}")
            self._write_int8(fp32.path, path, images.pixels, target)
            facts = self._in_precision("int8", RECIPES[target].text, fp32, path)
            facts.manifest.calibration.CopyFrom(images.facts)
            facts.manifest.calibration.refused = len(images.skipped)
            return facts

        return self._stages.get_or_make(
            self._key(fp32.key, target, calibration_sha256(folder)), make
        )

    def _engine(self, onnx: Stage) -> Stage:
        from export.conversion.tensorrt_library import target_key
        from export.conversion.to_tensorrt import Profile, build_engine

        options = self._options
        library: Library = "tensorrt" if options.format == "plan" else "tensorrt_rtx"
        profile = Profile(1, options.opt_batch_size, options.max_batch_size)

        def make(path: Path) -> pb.Model:
            self._reporter.step(f"Engine: {library}")
            engine = build_engine(
                onnx.path,
                path,
                profile,
                library,
                optimization_level=options.optimization_level,
                timing_cache_path=cache_path() / "tensorrt.timing",
                reporter=self._reporter,
            )
            facts = pb.Model(manifest=pb.Manifest(engine=engine))
            if library == "tensorrt":  # one that was built ahead of time does not run here
                name = f"ONNX {options.precision} → engine"
                facts.parity.append(
                    self._compare(name, onnx_runtime(onnx.path), engine_runtime(path), "engine")
                )
            return facts

        key = self._key(
            onnx.key, target_key(library), options.opt_batch_size, options.optimization_level
        )
        return self._stages.get_or_make(key, make)

    # ------------------------------------------------------------------------ shared by the rungs

    def _key(self, *parts: object) -> str:
        return digest(*parts, self._options.max_batch_size)

    def _export(self, precision: Literal["fp32", "fp16"], path: Path) -> None:
        from export.conversion.to_onnx import ServedNetwork, to_onnx

        network, loaded = self._network, self._loaded
        self._reporter.step(f"Export: ONNX {precision}")
        servable = ServedNetwork(
            loaded.network,
            network.mean,
            network.std,
            precision,
            is_bgr=network.is_bgr,
            with_layers=network.reads_digits,
            activation=self._options.activation,
        )
        to_onnx(servable, network.size, self._classes, path)

    def _write_fp16(self, path: Path) -> str:
        """Returns the recipe."""
        self._export("fp16", path)
        return FP16.format(activation=self._options.activation)

    def _write_int8(self, fp32: Path, path: Path, images: Pixels, target: Target) -> None:
        from export.conversion.to_int8 import to_int8

        to_int8(fp32, path, images, target, self._reporter)

    def _in_precision(self, precision: str, recipe: str, fp32: Stage, path: Path) -> pb.Model:
        """Compares with fp32; int8 is not judged on random weights, whose answers it loses."""
        rung = self._compare(
            f"ONNX fp32 → ONNX {precision}",
            onnx_runtime(fp32.path),
            onnx_runtime(path),
            precision,
            is_judged=precision != "int8" or not self._options.is_random,
        )
        return pb.Model(
            manifest=pb.Manifest(
                precision=precision, precision_recipe=recipe, onnx_sha256=file_sha256(path)
            ),
            parity=[rung],
        )
