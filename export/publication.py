"""How a build becomes a version: it is staged, proven as it is served, and published by one rename.

`convoy build` and `convoy adopt` share this: they differ in the ladder that makes the file.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from convoy.terminal import print_error
from convoy.v1 import classifier_pb2 as pb
from export.build_cache import package_versions
from export.catalog import CATALOG
from export.console import BuildResult, ProgressBars, PublishedVersion, print_version
from export.errors import BadName, ExportError
from export.files import file_sha256
from export.options import Options
from export.progress import Reporter
from export.repository.config import facts_json, labels_text, read_facts, write_config
from export.repository.layout import MODEL_FILES, highest_published
from export.repository.publishing import prune, staging

if TYPE_CHECKING:
    from export.proof.ladder import Ladder

MANIFEST_FILE, ENGINE_FILE = "manifest.json", "model.engine"


Run = Callable[[Options, Reporter, str], PublishedVersion]  # the runtime is for people


def check_name(name: str, network: str = "") -> None:
    """`network` is the row of the catalog that is built, if it is one.

    Raises:
        BadName: no model can have this name, or it is the name of another network.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise BadName(
            f"{name!r} is not a valid model name: use lower-case letters, digits, '-' and '_', "
            "starting with a letter or digit."
        )
    if name in CATALOG and name != network:
        other = f"another network than {network}" if network else "a network of the catalog"
        raise BadName(f"{name} is the name of {other}: choose a different name.")


def build_one(run: Run, options: Options, runtime: str) -> BuildResult:
    """Runs one build and prints the outcome; an error ends this build alone."""
    start_s = time.monotonic()
    published, message = None, ""
    try:
        with ProgressBars(options.name, count_steps(options)) as bars:
            published = run(options, bars, runtime)
        print_version(published)
    except (ExportError, OSError) as error:  # OSError: of the disk, where no stage explains it
        message = str(error)
        print_error(error)
    seconds = time.monotonic() - start_s
    return BuildResult(options.name, options.precision, seconds, published, message)


def count_steps(options: Options) -> int:
    """Weights, golden images, served, publishing; and for each rung: export and parity."""
    rungs = 1 + (options.precision != "fp32") + (options.format != "onnx")
    return 4 + 2 * rungs + bool(options.evaluate)


def find_published(options: Options) -> PublishedVersion | None:
    """The highest version, if it came from the same build and its file is unchanged."""
    folder = highest_published(options.repository, options.name)
    if folder is None or (model := read_facts(folder)) is None:
        return None
    manifest = model.manifest
    file = folder / MODEL_FILES.get(manifest.format, MODEL_FILES["onnx"])
    expected = manifest.engine.sha256 or manifest.onnx_sha256
    is_same = manifest.build_sha256 == options.sha256 and file.is_file()
    if not is_same or file_sha256(file) != expected:
        return None
    return PublishedVersion(folder, model, was_published=True)


def publish(
    options: Options,
    ladder: Ladder,
    labels: Sequence[pb.Label],
    reporter: Reporter,
    runtime: str,
) -> PublishedVersion:
    """Builds a version in a staging folder, proves what is served of it, and publishes it."""
    with staging(options.repository, options.name, replace=options.replace) as staged:
        last, model = ladder.build()
        ladder.evaluate(last, model, labels)
        reporter.step("Golden images")
        add_facts(model, options, labels)
        model.golden_images.extend(ladder.golden_images(last, model, labels))
        shutil.copyfile(last.path, staged.folder / MODEL_FILES[model.manifest.format])
        write_config(staged.folder, model, options.max_batch_size)
        reporter.step("The served answer")
        model.parity.extend(ladder.served(last, model, staged.folder))
        reporter.step("Publishing")
        write_config(staged.folder, model, options.max_batch_size)
        staged.publish()
    if options.keep:
        prune(options.repository, options.name, options.keep)
    return PublishedVersion(staged.published, model, runtime)


def write_aside(
    options: Options, ladder: Ladder, labels: Sequence[pb.Label], runtime: str
) -> PublishedVersion:
    """An RTX engine and its manifest, outside the repository: Triton does not load it."""
    last, model = ladder.build()
    add_facts(model, options, labels)
    folder = options.output / options.name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(last.path, folder / ENGINE_FILE)
    manifest = facts_json(model)["manifest"]
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (folder / MANIFEST_FILE).write_text(f"{text}\n", encoding="utf-8")
    return PublishedVersion(folder, model, runtime)


def add_facts(model: pb.Model, options: Options, labels: Sequence[pb.Label]) -> None:
    """The facts that no rung of the ladder knows."""
    model.labels.extend(labels)
    manifest = model.manifest
    manifest.format = options.format
    manifest.labels_sha256 = hashlib.sha256(labels_text(labels).encode()).hexdigest()
    manifest.versions.update(package_versions())
    options.record_preparation(model)
    manifest.build_command = options.command
    manifest.build_sha256 = options.sha256
