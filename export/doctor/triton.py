"""What `convoy doctor --triton HOST:PORT` asks a running Triton, and what it can tell.

Triton tells its own version, what it finds in its repository, in which state that is and why, and
the config.pbtxt of what it has loaded. It does not tell its TensorRT: that follows from the release
(server 2.66 is container 26.02, and each month adds one), as far as it is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from export.conversion.engine_header import read_header
from export.doctor.folder import (
    PLAN_FILE,
    Finding,
    Repository,
    Unread,
    Version,
    command,
    differs,
)
from export.errors import EngineError
from export.repository.config import FACTS_KEY

if TYPE_CHECKING:
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.grpc.model_config_pb2 import ModelConfig

TIMEOUT_S = 10.0
HTTP_PORT = 8000  # unless Triton was told another
# Major version of TensorRT in Triton's containers, from this release of the server on. Older ones
# than 26.02 are not looked up.
TENSORRT_SINCE = {(2, 66): 10, (2, 70): 11}
NO_MODEL = "convoy-doctor.v0"  # a name that no version can have
CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # A proxy for the internet has no business here.
    ("grpc.enable_http_proxy", 0),
]


def examine_triton(
    address: str, repository: Repository, versions: Sequence[Version]
) -> Iterator[Finding]:
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    start = command("tritonserver", f"--model-repository={repository.path}")
    start += " --model-control-mode=explicit"
    client = InferenceServerClient(address, channel_args=CHANNEL_OPTIONS)
    try:
        told = client.get_server_metadata(client_timeout=TIMEOUT_S).version
        entries = client.get_model_repository_index(client_timeout=TIMEOUT_S).models
        is_open = _is_open(client)
        if not is_open:
            problem = "model control: expected explicit, found closed: it loads at its start alone"
            yield Finding("", "triton", problem, start, is_fault=False)
        index = {entry.name: entry for entry in entries}
        for version in versions:
            at = f"http://{address.rpartition(':')[0]}:{HTTP_PORT}/v2/repository/models"
            load = command("curl", "-X", "POST", f"{at}/{version.name}/load")
            entry = index.get(version.name)
            if entry is None:
                yield _found(version, f"no {version.name} in its repository", start)
            elif entry.state == "READY":
                config = client.get_model_config(version.name, client_timeout=TIMEOUT_S).config
                if not _is_what_the_folder_holds(version, config):
                    yield _found(version, "what it loaded before the folder changed", load)
            elif entry.reason not in ("", "unloaded"):
                yield _found(version, f"that it cannot load it: {_one_line(entry.reason)}", load)
            elif not is_open:
                yield _found(version, "it not loaded", start)
            yield from examine_plan(version, told, load)
    except InferenceServerException as error:
        problem = f"Triton at {address}: expected an answer, found {error.message()}"
        yield Finding("", "triton", problem, start)
    finally:
        client.close()


def _is_open(client: InferenceServerClient) -> bool:
    """Whether models can be loaded: to let one go that there cannot be changes nothing."""
    from tritonclient.utils import InferenceServerException

    try:
        client.unload_model(NO_MODEL, client_timeout=TIMEOUT_S)
    except InferenceServerException as error:
        return "explicit model load / unload is not allowed" not in error.message()
    return True


def _found(version: Version, found: str, remedy: str) -> Finding:
    expected = "the version as it lies there, or room to load it"
    return Finding(version.name, "triton", differs("Triton", expected, found), remedy)


def _is_what_the_folder_holds(version: Version, config: ModelConfig) -> bool:
    """By the facts: Triton itself completes the rest. What cannot be read, another check says."""
    try:
        return bool(config.parameters[FACTS_KEY].string_value == version.facts_text)
    except Unread:
        return True


def examine_plan(version: Version, triton: str, load: str) -> Iterator[Finding]:
    """Whether Triton's TensorRT is the plan's; a release tells the major version alone.

    Where it tells not even that, loading the plan (`load`) does.
    """
    try:
        plan = read_header(version.require(PLAN_FILE)).version
    except (Unread, EngineError):  # no plan, or one that another check speaks of
        return
    major = tensorrt_of(triton)
    if major is None:
        problem = f"which TensorRT Triton {triton} has is not known here; the plan wants {plan}"
        yield Finding(version.name, "triton", problem, load, is_fault=False)
    elif plan.partition(".")[0] != str(major):
        problem = differs(f"{PLAN_FILE}, TensorRT as in Triton {triton}", f"{major}.x", plan)
        problem += "; build it in the container of Triton's release"
        yield Finding(version.name, "triton", problem, version.mend)


def tensorrt_of(triton: str) -> int | None:
    """The major version of TensorRT that a release of the server carries; None: not known."""
    numbers = re.match(r"(\d+)\.(\d+)", triton)
    release = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    return max(
        ((since, major) for since, major in TENSORRT_SINCE.items() if since <= release),
        default=(None, None),
    )[1]


def _one_line(reason: str) -> str:
    """Without the traceback of a python backend."""
    return " ".join(reason.partition("\n\nAt:")[0].split())
