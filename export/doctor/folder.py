"""What `convoy doctor` reads of a model repository, and which command mends a version's folder."""

from __future__ import annotations

import json
import os
import shlex
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from convoy.v1 import classifier_pb2 as pb
from export.catalog import CATALOG
from export.repository.config import BACKENDS, FACTS_KEY, read_facts
from export.repository.layout import MODEL_FILES, PUBLISHED, VERSION

BUILD = "python export/build.py"
CONFIG_FILE, LABELS_FILE = "config.pbtxt", "labels.txt"
ONNX_FILE, PLAN_FILE = str(MODEL_FILES["onnx"]), str(MODEL_FILES["plan"])
FOLDERS = (".", "1")  # of a version; all else there is a file
# What Triton calls the two that it loads: backend, and the older word, platform.
FILE_OF_BACKEND = {BACKENDS[format_]: str(file) for format_, file in MODEL_FILES.items()}
BACKEND_OF_PLATFORM = {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt"}

TYPE_OF_ONNX = {
    "tensor(uint8)": "UINT8",
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(int32)": "INT32",
}


@dataclass(frozen=True)
class Finding:
    version: str  # its folder's name; empty: of the repository, or of Triton
    check: str
    problem: str  # what was expected, and what was found
    remedy: str  # the one command that mends it
    is_fault: bool = True  # False: to be known, and nothing is wrong


class Unread(Exception):
    """Something cannot be read at all, so that what depends on it cannot be looked at."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Repository:
    path: Path
    is_default: bool  # whether commands find it without being told

    @property
    def option(self) -> str:
        return "" if self.is_default else f" --repository {shlex.quote(str(self.path))}"

    def versions(self) -> list[Version]:
        """By model and number.

        Raises:
            OSError: the repository cannot be read.
        """
        folders = [path for path in self.path.iterdir() if is_published(path)]
        found = [Version(self, folder) for folder in folders]
        return sorted(found, key=lambda version: (version.model, version.number))


def is_published(path: Path) -> bool:
    """Whether it is a folder NAME.vN, which gateways serve."""
    match = VERSION.fullmatch(path.name)
    hidden = path.name.startswith(".")
    return match is not None and match["suffix"] == PUBLISHED and not hidden and path.is_dir()


@dataclass(frozen=True)
class Version:
    """A folder NAME.vN, read as far as a check asks."""

    repository: Repository
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def model(self) -> str:
        return self.name.rpartition(".v")[0]

    @property
    def number(self) -> int:
        return int(self.name.rpartition(".v")[2])

    # ------------------------------------------------------------------------- what is read

    def require(self, file: str) -> Path:
        """Where the file lies, once it is sure that it is there and may be read."""
        path, kind = self.path / file, "folder" if file in FOLDERS else "file"
        try:
            mode = path.stat().st_mode
        except PermissionError:
            mode = 0
        except OSError:  # among them a link that leads back to itself
            found = f"a link to {path.readlink()}" if path.is_symlink() else "none"
            raise Unread(differs(file, f"a {kind}", found), self.mend) from None
        # Bits too, since root reads everything, and Triton may be somebody else.
        if not (mode & 0o444 and os.access(path, os.R_OK)):
            remedy = command("chmod", "-R", "a+rX", self.path)
            raise Unread(differs(file, f"a {kind} that may be read", "one that may not"), remedy)
        if not (stat.S_ISDIR(mode) if kind == "folder" else stat.S_ISREG(mode)):
            raise Unread(differs(file, f"a {kind}", "something else"), self.mend)
        return path

    def read(self, file: str) -> str:
        try:
            return self.require(file).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise Unread(f"{file}: expected text in UTF-8, found {error}", self.mend) from error

    @cached_property
    def config(self) -> ModelConfig:
        text = self.read(CONFIG_FILE)
        try:
            return text_format.Parse(text, ModelConfig())
        except text_format.ParseError as error:  # it begins with LINE:COLUMN
            found = f"at line:column {error}"
            raise Unread(differs(CONFIG_FILE, "Triton's ModelConfig", found), self.mend) from error

    @cached_property
    def facts_text(self) -> str:
        if FACTS_KEY not in self.config.parameters:
            raise Unread(f'{CONFIG_FILE}: expected parameter "{FACTS_KEY}", found none', self.mend)
        return str(self.config.parameters[FACTS_KEY].string_value)

    @cached_property
    def facts_json(self) -> dict[str, Any]:
        try:
            facts = json.loads(self.facts_text)
        except (ValueError, RecursionError) as error:
            raise Unread(differs(FACTS_KEY, "JSON", error), self.mend) from error
        if not isinstance(facts, dict):
            raise Unread(differs(FACTS_KEY, "an object", repr(facts)), self.mend)
        return facts

    @cached_property
    def facts(self) -> pb.Model:
        """Fields of a newer contract are passed over, as the gateway does."""
        try:
            return json_format.ParseDict(self.facts_json, pb.Model(), ignore_unknown_fields=True)
        except json_format.ParseError as error:
            raise Unread(differs(FACTS_KEY, "the contract's Model", error), self.mend) from error

    @cached_property
    def backend(self) -> str:
        return self.config.backend or BACKEND_OF_PLATFORM.get(self.config.platform, "")

    @cached_property
    def model_file(self) -> str:
        """That of the backend; where it is missing, the other one."""
        files = sorted(
            FILE_OF_BACKEND.values(), key=lambda file: file != FILE_OF_BACKEND.get(self.backend)
        )
        there = [file for file in files if os.path.lexists(self.path / file)]
        return there[0] if there else files[0]

    @cached_property
    def graph(self) -> dict[str, tuple[str, list[Any]]]:
        """The type of each input and output ("input image"), and its shape, the batch first.

        That ONNX Runtime opens it is a check of its own, of all of the file.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # what it has to say, it raises
        path = self.require(ONNX_FILE)
        providers = ["CPUExecutionProvider"]
        try:
            # A fallback would print, and try the same again.
            session = ort.InferenceSession(path, options, providers, enable_fallback=0)
            nodes = {"input": session.get_inputs(), "output": session.get_outputs()}
            return {
                f"{kind} {node.name}": (TYPE_OF_ONNX.get(node.type, node.type), node.shape)
                for kind in nodes
                for node in nodes[kind]
            }
        except Exception as error:  # ONNX Runtime's errors share no base class
            reason = str(error).replace(str(path), ONNX_FILE).splitlines()[0]
            raise Unread(
                f"{ONNX_FILE}: expected an ONNX model, found {reason}", self.mend
            ) from error

    # ------------------------------------------------------------------------- what mends it

    @property
    def mend(self) -> str:
        """For a folder whose content is wrong. One that is not the highest needs only to go."""
        others = [other.number for other in self.repository.versions() if other.model == self.model]
        withdraw = command("mv", self.path, f"{self.path}.withdrawn")
        again = f" --force --replace{self.repository.option}"
        if self.number < max(others):
            return withdraw
        if self._build_command:
            return self._build_command + again
        if len(others) > 1:
            return f"convoy rollback {self.model}{self.repository.option}"
        return f"{BUILD} {self.model}{again}" if self.model in CATALOG else withdraw

    @cached_property
    def _build_command(self) -> str:
        """As the manifest has it, or nothing."""
        facts = read_facts(self.path)
        build_command = facts.manifest.build_command if facts else ""
        is_ours = build_command.startswith(f"{BUILD} ") and build_command.isprintable()
        return build_command if is_ours else ""


def command(*words: str | Path) -> str:
    return shlex.join(map(str, words))


def differs(what: str, expected: object, found: object) -> str:
    return f"{what}: expected {expected}, found {found}"
