"""The model repository: what a version's folder holds, and how it comes to be there.

    NAME.vN/   config.pbtxt   what Triton must know; parameters["convoy.v1.Model"]: all other facts
               labels.txt     one a line, for Triton's own classification extension
               1/model.onnx   or 1/model.plan

A build makes the whole folder as `NAME.vN.staging`, which nothing serves, and publishes it by one
rename to `NAME.vN`, a number that was never used before. A published folder never changes; it can
be withdrawn, which is a rename to `NAME.vN.withdrawn`, or deleted once it is old.

Beside the folders lie files that nothing serves either:

    .NAME.lock      held while a number is chosen, and while anything is renamed or deleted
    .NAME.vN.lock   held by the build that makes NAME.vN as long as it lives, so that the next one
                    tells the folder of a build at work from one that a killed build left
    .NAME.highest   the highest number ever published
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock, FileLock, Timeout
from google.protobuf import json_format, text_format

from convoy.v1 import classifier_pb2 as pb
from export.errors import RepositoryError

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

FACTS_KEY = "convoy.v1.Model"
CHECKOUTS_REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"

# What a folder is, by what its name has after NAME.vN. Only the first is served.
PUBLISHED, WITHDRAWN, STAGING, REPLACED, DELETED = (
    "",
    ".withdrawn",
    ".staging",
    ".replaced",
    ".deleted",
)
LOCK = ".lock"
VERSION = re.compile(
    r"\.?(?P<name>[a-z0-9][a-z0-9_-]*)\.v(?P<number>[1-9][0-9]*)(?P<suffix>(\.[a-z]+)?)"
)
LOCK_TIMEOUT_S = 60.0  # it is held for as long as a few renames and deletions take
# What the operating system says of a full or read-only disk.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


# By the format that the manifest names.
MODEL_FILES = {"onnx": Path("1", "model.onnx"), "plan": Path("1", "model.plan")}
BACKENDS = {"onnx": "onnxruntime", "plan": "tensorrt"}  # Triton's


def default_repository() -> Path:
    return CHECKOUTS_REPOSITORY if CHECKOUTS_REPOSITORY.is_dir() else Path("model_repository")


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
    from tritonclient.grpc import model_config_pb2 as triton

    taken = model.input
    facts = json.dumps(facts_json(model), ensure_ascii=False, sort_keys=True)  # maps have no order
    return triton.ModelConfig(
        backend=BACKENDS[model.manifest.format or "onnx"],
        max_batch_size=max_batch_size,
        input=[
            triton.ModelInput(
                name="image",
                data_type=triton.TYPE_UINT8,
                dims=[taken.height, taken.width, taken.channels],
            )
        ],
        output=[
            triton.ModelOutput(
                name="probabilities",
                data_type=triton.TYPE_FP32,
                dims=[len(model.labels)],
                label_filename="labels.txt",
            ),
            triton.ModelOutput(name="batch_size", data_type=triton.TYPE_INT32, dims=[1]),
        ],
        instance_group=[triton.ModelInstanceGroup(count=1)],
        dynamic_batching=triton.ModelDynamicBatching(),
        parameters={FACTS_KEY: triton.ModelParameter(string_value=facts)},
    )


def write(folder: Path, model: pb.Model, max_batch_size: int) -> None:
    """config.pbtxt and labels.txt, beside the model's file, whose format the manifest names."""
    text = text_format.MessageToString(config(model, max_batch_size), as_utf8=True)
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    (folder / "labels.txt").write_text(labels_text(model.labels), encoding="utf-8")


def read_config(folder: Path) -> ModelConfig:
    """
    Raises:
        RepositoryError: config.pbtxt is not there, or is broken.
    """
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    path = folder / "config.pbtxt"
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise RepositoryError(f"{path} cannot be read: {error}.") from error


def max_batch_size(folder: Path) -> int:
    """
    Raises:
        RepositoryError: as read_config.
    """
    return int(read_config(folder).max_batch_size)


def read_facts(folder: Path) -> pb.Model | None:
    """What a build wrote of a version; None where that cannot be read."""
    try:
        facts = read_config(folder).parameters[FACTS_KEY].string_value
        return json_format.Parse(facts, pb.Model(), ignore_unknown_fields=True)
    except (RepositoryError, json_format.ParseError):
        return None


# ------------------------------------------------------------------------------ stage and publish


@dataclass
class Staging:
    """A version in the making."""

    folder: Path  # NAME.vN.staging
    published: Path  # NAME.vN, where it will be
    replace: bool  # whether that is there already, to be rebuilt

    def publish(self) -> None:
        """One rename; one that is rebuilt steps aside just before.

        Raises:
            RepositoryError: the repository cannot be written, or the version is there already.
        """
        repository, (name, _, number) = self.published.parent, self.published.name.rpartition(".v")
        with exclusively(repository, name):
            if self.published.exists() and not self.replace:
                raise RepositoryError(f"{self.published} is there already: build once more.")
            _remember(repository, name, int(number))
            aside = folder_of(repository, name, int(number), REPLACED)
            if self.published.exists():
                self.published.rename(aside)
            self.folder.rename(self.published)
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def staging(repository: Path, name: str, *, replace: bool = False) -> Iterator[Staging]:
    """A fresh staging folder for the next version, or for the highest one anew (`replace`).

    What is not published when the block ends is deleted. Builds of one model at once get a number
    each.

    Raises:
        RepositoryError: the repository cannot be written or is full, or another build replaces the
            same version.
    """
    with _told(f"Cannot write to the model repository {repository}"):
        repository.mkdir(parents=True, exist_ok=True)
    with exclusively(repository, name):
        staged, lock = _begin(repository, name, replace=replace)
    try:
        with _told(f"Cannot write to the model repository {repository}"):
            (staged.folder / "1").mkdir(parents=True)
        with _told(f"Cannot make {staged.folder}, or what it is made of", only=NO_ROOM):
            yield staged
    finally:
        shutil.rmtree(staged.folder, ignore_errors=True)
        # While its file is there nobody takes the number, so the file goes after the folder.
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _begin(repository: Path, name: str, *, replace: bool) -> tuple[Staging, BaseFileLock]:
    """A number, and its lock before there is a folder: nobody sees one of a build at work unlocked.
    To be called with the name's lock held."""
    published = numbers(repository, name)
    is_there = replace and bool(published)
    number = published[-1] if is_there else highest_version(repository, name) + 1
    lock = _lock_of_build(repository, name, number)
    try:
        lock.acquire()
    except Timeout as error:
        raise RepositoryError(
            f"Another build of {name}.v{number} is at work in {repository}: wait until it is done."
        ) from error
    folder = folder_of(repository, name, number, STAGING)
    return Staging(folder, folder_of(repository, name, number), is_there), lock


def prune(repository: Path, name: str, keep: int) -> list[str]:
    """Deletes what is older than the `keep` highest published versions; the names of what went.

    Withdrawn versions do not count, and go when they are older than all that stay.

    Raises:
        RepositoryError: fewer than two would stay, or the repository cannot be written.
    """
    if keep < 2:
        raise RepositoryError(f"At least 2 versions stay, to have one to go back to; got {keep}.")
    deleted = []
    with exclusively(repository, name):
        kept = numbers(repository, name)[-keep:]
        for number, suffix in _forms(repository, name):
            if suffix in (PUBLISHED, WITHDRAWN) and len(kept) == keep and number < kept[0]:
                folder = folder_of(repository, name, number, suffix)
                # First a name that nothing serves: a kill on the way leaves no half version.
                shutil.rmtree(folder.rename(folder_of(repository, name, number, DELETED)))
                deleted.append(folder.name)
    return deleted


# ------------------------------------------------------------------------------ numbers and locks


def folder_of(repository: Path, name: str, number: int, suffix: str = PUBLISHED) -> Path:
    return repository / f"{name}.v{number}{suffix}"


def numbers(repository: Path, name: str, suffix: str = PUBLISHED) -> list[int]:
    """Of the versions that are there in this form, ascending."""
    return [number for number, form in _forms(repository, name) if form == suffix]


def highest_published(repository: Path, name: str) -> Path | None:
    """The folder that gateways try first; None where there is none."""
    published = numbers(repository, name) if repository.is_dir() else []
    return folder_of(repository, name, published[-1]) if published else None


def highest_version(repository: Path, name: str) -> int:
    """The highest number ever given: withdrawn, in the making, deleted by hand; 0 where there is
    none. A gateway would take a folder of a number that it has loaded for what it has loaded."""
    given = [number for number, _ in _forms(repository, name)]
    return max(_remembered(repository, name), *given, 0)


def names(repository: Path) -> set[str]:
    """Of the models that have a version here, withdrawn or not."""
    matches = [VERSION.fullmatch(path.name) for path in repository.iterdir()]
    return {match["name"] for match in matches if match and match["suffix"] in ("", WITHDRAWN)}


@contextlib.contextmanager
def exclusively(repository: Path, name: str) -> Iterator[None]:
    """The versions of this name are one's own to rename and delete, for a moment; what killed
    builds have left is cleared before.

    Raises:
        RepositoryError: the repository cannot be written, or somebody does not let the lock go.
    """
    lock = FileLock(repository / f".{name}{LOCK}", timeout=LOCK_TIMEOUT_S)
    try:
        with _told(f"Cannot write to the model repository {repository}"), lock:
            _clear(repository, name)
            yield
    except Timeout as error:
        raise RepositoryError(
            f"Another command has held {lock.lock_file} for {LOCK_TIMEOUT_S:.0f} s: wait until it "
            "has ended."
        ) from error


@contextlib.contextmanager
def _told(what: str, only: Sequence[int] = ()) -> Iterator[None]:
    """An error of the disk in one sentence: any, or those of these numbers."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        if only and error.errno not in only:
            raise
        raise RepositoryError(
            f"{what}: {error.strerror or error}; mend that, or name another repository with "
            "--repository or CONVOY_REPOSITORY."
        ) from error


def _lock_of_build(repository: Path, name: str, number: int) -> BaseFileLock:
    return FileLock(repository / f".{name}.v{number}{LOCK}", timeout=0)


def _forms(repository: Path, name: str) -> list[tuple[int, str]]:
    """Number and suffix of all that is there of this name's versions, locks included; ascending."""
    matches = [VERSION.fullmatch(path.name) for path in repository.iterdir()]
    return sorted(
        (int(match["number"]), match["suffix"])
        for match in matches
        if match and match["name"] == name
    )


def _clear(repository: Path, name: str) -> None:
    """Deletes what nobody is at work on; called with the name's lock held."""
    left = {
        number for number, form in _forms(repository, name) if form not in (PUBLISHED, WITHDRAWN)
    }
    for number in left:
        lock = _lock_of_build(repository, name, number)
        with contextlib.suppress(Timeout), lock:  # held: by a build at work
            published, replaced, *others = (
                folder_of(repository, name, number, form)
                for form in (PUBLISHED, REPLACED, STAGING, DELETED)
            )
            if replaced.exists() and not published.exists():
                replaced.rename(published)  # killed between the two renames
            for folder in (replaced, *others):
                if folder.exists():
                    shutil.rmtree(folder)
            Path(lock.lock_file).unlink()


def _remember(repository: Path, name: str, number: int) -> None:
    path = repository / f".{name}.highest"
    beside = path.with_suffix(".new")
    beside.write_text(str(max(number, _remembered(repository, name))))
    beside.replace(path)


def _remembered(repository: Path, name: str) -> int:
    """0 where nothing was published yet, as in a fresh clone."""
    try:
        return int((repository / f".{name}.highest").read_text())
    except (FileNotFoundError, ValueError):
        return 0
