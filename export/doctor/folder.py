"""Reads a model repository for `convoy doctor`, and knows the command that fixes a version."""

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
from export.doctor.rebuild import BUILD, rebuild_command
from export.repository.config import BACKENDS, FACTS_KEY, read_facts
from export.repository.layout import MODEL_FILES, PUBLISHED, VERSION

CONFIG_FILE, LABELS_FILE = "config.pbtxt", "labels.txt"
ONNX_FILE, PLAN_FILE = str(MODEL_FILES["onnx"]), str(MODEL_FILES["plan"])
FOLDERS = (".", "1")  # of a version; everything else in it is a file
# Triton's names of the two backends, and their older names, platforms.
BACKEND_FILES = {BACKENDS[format_]: str(file) for format_, file in MODEL_FILES.items()}
PLATFORM_BACKENDS = {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt"}

ONNX_TYPES = {
    "tensor(uint8)": "UINT8",
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(int32)": "INT32",
}


@dataclass(frozen=True)
class Finding:
    version: str  # its folder's name; empty: the repository or Triton
    check: str
    problem: str  # what was expected, and what was found
    remedy: str  # the one command that fixes it
    is_fault: bool = True  # False: for information, nothing is wrong


class Unreadable(Exception):
    """Something cannot be read, so that nothing that depends on it can be checked."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Repository:
    path: Path
    is_default: bool  # whether commands find it without --repository

    @property
    def option(self) -> str:
        return "" if self.is_default else f" --repository {shlex.quote(str(self.path))}"

    def versions(self) -> list[VersionFolder]:
        """Returns the versions, sorted by model and number.

        Raises:
            OSError: the repository cannot be read.
        """
        folders = [path for path in self.path.iterdir() if is_published(path)]
        versions = [VersionFolder(self, folder) for folder in folders]
        return sorted(versions, key=lambda version: (version.model, version.number))


def is_published(path: Path) -> bool:
    """Returns whether it is a folder NAME.vN, which gateways serve."""
    match = VERSION.fullmatch(path.name)
    hidden = path.name.startswith(".")
    return match is not None and match["suffix"] == PUBLISHED and not hidden and path.is_dir()


@dataclass(frozen=True)
class VersionFolder:
    """A folder NAME.vN. Its parts are read when a check needs them."""

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

    # ------------------------------------------------------------------------- reading

    def require(self, file: str) -> Path:
        """Returns the path of a file or folder that exists and is readable.

        Raises:
            Unreadable: it does not exist, is of another kind, or may not be read.
        """
        path, kind = self.path / file, "folder" if file in FOLDERS else "file"
        try:
            mode = path.stat().st_mode
        except PermissionError:
            mode = 0
        except OSError:  # such as a link to itself
            found = f"a link to {path.readlink()}" if path.is_symlink() else "none"
            raise Unreadable(differs(file, f"a {kind}", found), self.fix) from None
        # Also the mode, since root can read everything, and Triton may run as another user.
        if not (mode & 0o444 and os.access(path, os.R_OK)):
            remedy = command("chmod", "-R", "a+rX", self.path)
            raise Unreadable(differs(file, f"a readable {kind}", "one that is not"), remedy)
        if not (stat.S_ISDIR(mode) if kind == "folder" else stat.S_ISREG(mode)):
            raise Unreadable(differs(file, f"a {kind}", "something else"), self.fix)
        return path

    def read(self, file: str) -> str:
        try:
            return self.require(file).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise Unreadable(f"{file}: expected text in UTF-8, found {error}", self.fix) from error

    @cached_property
    def config(self) -> ModelConfig:
        text = self.read(CONFIG_FILE)
        try:
            return text_format.Parse(text, ModelConfig())
        except text_format.ParseError as error:  # it begins with LINE:COLUMN
            found = f"at line:column {error}"
            raise Unreadable(
                differs(CONFIG_FILE, "Triton's ModelConfig", found), self.fix
            ) from error

    @cached_property
    def facts_text(self) -> str:
        if FACTS_KEY not in self.config.parameters:
            raise Unreadable(
                f'{CONFIG_FILE}: expected parameter "{FACTS_KEY}", found none', self.fix
            )
        return str(self.config.parameters[FACTS_KEY].string_value)

    @cached_property
    def facts_json(self) -> dict[str, Any]:
        try:
            facts = json.loads(self.facts_text)
        except (ValueError, RecursionError) as error:
            raise Unreadable(differs(FACTS_KEY, "JSON", error), self.fix) from error
        if not isinstance(facts, dict):
            raise Unreadable(differs(FACTS_KEY, "an object", repr(facts)), self.fix)
        return facts

    @cached_property
    def facts(self) -> pb.Model:
        """Ignores fields of a newer contract, as the gateway does."""
        try:
            return json_format.ParseDict(self.facts_json, pb.Model(), ignore_unknown_fields=True)
        except json_format.ParseError as error:
            raise Unreadable(differs(FACTS_KEY, "the contract's Model", error), self.fix) from error

    @cached_property
    def backend(self) -> str:
        return self.config.backend or PLATFORM_BACKENDS.get(self.config.platform, "")

    @cached_property
    def model_file(self) -> str:
        """The file for the backend; if it is missing, the other one."""
        files = sorted(
            BACKEND_FILES.values(), key=lambda file: file != BACKEND_FILES.get(self.backend)
        )
        existing = [file for file in files if os.path.lexists(self.path / file)]
        return existing[0] if existing else files[0]

    @cached_property
    def graph(self) -> dict[str, tuple[str, list[Any]]]:
        """The type and the shape (batch first) of each input and output, such as "input image".

        ONNX Runtime reads the whole file, which checks it.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # it raises its errors
        content = self.require(ONNX_FILE).read_bytes()  # it opens paths in UTF-8 alone
        providers = ["CPUExecutionProvider"]
        try:
            # A fallback would print, and only try again.
            session = ort.InferenceSession(content, options, providers, enable_fallback=0)
            nodes = {"input": session.get_inputs(), "output": session.get_outputs()}
            return {
                f"{kind} {node.name}": (ONNX_TYPES.get(node.type, node.type), node.shape)
                for kind in nodes
                for node in nodes[kind]
            }
        except Exception as error:  # ONNX Runtime's errors share no base class
            reason = str(error).splitlines()[0]
            raise Unreadable(
                f"{ONNX_FILE}: expected an ONNX model, found {reason}", self.fix
            ) from error

    # ------------------------------------------------------------------------- fixing

    @property
    def fix(self) -> str:
        """The command for a folder with wrong content; it withdraws all but the highest version."""
        others = [other.number for other in self.repository.versions() if other.model == self.model]
        withdraw = command("mv", self.path, f"{self.path}.withdrawn")
        options = f" --force --replace{self.repository.option}"
        if self.number < max(others):
            return withdraw
        if rebuild := rebuild_command(self.model, self.recorded_build):
            return rebuild + options
        if len(others) > 1:
            return f"convoy rollback {self.model}{self.repository.option}"
        # Weights of the user's own are not replaced by others.
        by_name = self.model in CATALOG and not self.recorded_build
        return f"{BUILD} {self.model}{options}" if by_name else withdraw

    @cached_property
    def recorded_build(self) -> str:
        """The command that the manifest names, which anybody may have written; or empty."""
        facts = read_facts(self.path)
        return facts.manifest.build_command if facts else ""


def command(*words: str | Path) -> str:
    return shlex.join(map(str, words))


def differs(what: str, expected: object, found: object) -> str:
    return f"{what}: expected {expected}, found {found}"
