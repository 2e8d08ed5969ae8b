"""The checks of `convoy doctor --triton HOST:PORT` on a running Triton.

Triton reports its own version, the models in its repository, their state and its reason, and the
config.pbtxt of those it has loaded. It does not report its TensorRT: that follows from the release
(server 2.66 is container 26.02, and each month adds one), where it is known.
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
    Unreadable,
    VersionFolder,
    command,
    differs,
)
from export.errors import EngineError
from export.repository.config import FACTS_KEY

if TYPE_CHECKING:
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.grpc.service_pb2 import RepositoryIndexResponse

TIMEOUT_S = 10.0
HTTP_PORT = 8000  # Triton's default
# The major version of TensorRT in Triton's containers from this release of the server on. Releases
# before 26.02 are not listed.
TENSORRT_SINCE = {(2, 66): 10, (2, 70): 11}
NO_MODEL = "convoy-doctor.v0"  # a name that no version can have
CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # Never through a proxy for the internet.
    ("grpc.enable_http_proxy", 0),
]


def examine_triton(
    address: str, repository: Repository, versions: Sequence[VersionFolder]
) -> Iterator[Finding]:
    """Asks the Triton at HOST:PORT (gRPC) whether it has the versions and can load them."""
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    start = command("tritonserver", f"--model-repository={repository.path}")
    start += " --model-control-mode=explicit"
    models_url = f"http://{address.rpartition(':')[0]}:{HTTP_PORT}/v2/repository/models"
    client = InferenceServerClient(address, channel_args=CHANNEL_OPTIONS)
    try:
        release = client.get_server_metadata(client_timeout=TIMEOUT_S).version
        entries = client.get_model_repository_index(client_timeout=TIMEOUT_S).models
        can_load = _can_load(client)
        if not can_load:
            problem = "model control: expected explicit, found closed: it only loads when it starts"
            yield Finding("", "triton", problem, start, is_fault=False)
        index = {entry.name: entry for entry in entries}
        for version in versions:
            load = command("curl", "-X", "POST", f"{models_url}/{version.name}/load")
            entry = index.get(version.name)
            if entry and entry.state == "READY":
                yield from _examine_loaded(client, version, load)
            else:
                yield from _examine_unloaded(version, entry, can_load, start, load)
            yield from examine_plan(version, release, load)
    except InferenceServerException as error:
        problem = f"Triton at {address}: expected an answer, found {error.message()}"
        yield Finding("", "triton", problem, start)
    finally:
        client.close()


def _can_load(client: InferenceServerClient) -> bool:
    """Returns whether models can be loaded, by unloading one that cannot exist."""
    from tritonclient.utils import InferenceServerException

    try:
        client.unload_model(NO_MODEL, client_timeout=TIMEOUT_S)
    except InferenceServerException as error:
        return "explicit model load / unload is not allowed" not in error.message()
    return True


def _difference(version: VersionFolder, found: str, remedy: str) -> Finding:
    expected = "the version as it is in the folder, or none loaded"
    return Finding(version.name, "triton", differs("Triton", expected, found), remedy)


def _examine_loaded(
    client: InferenceServerClient, version: VersionFolder, load: str
) -> Iterator[Finding]:
    """Compares the facts, since Triton completes the rest of config.pbtxt."""
    config = client.get_model_config(version.name, client_timeout=TIMEOUT_S).config
    try:
        is_current = config.parameters[FACTS_KEY].string_value == version.facts_text
    except Unreadable:  # a finding of another check
        return
    if not is_current:
        yield _difference(version, "a version that it loaded before the folder changed", load)


def _examine_unloaded(
    version: VersionFolder,
    entry: RepositoryIndexResponse.ModelIndex | None,
    can_load: bool,
    start: str,
    load: str,
) -> Iterator[Finding]:
    """Finds out why it is not loaded; `start` and `load` are the commands that load it."""
    if entry is None:
        yield _difference(version, f"no {version.name} in its repository", start)
    elif entry.reason not in ("", "unloaded"):
        yield _difference(version, f"a failed load: {_one_line(entry.reason)}", load)
    elif not can_load:
        yield _difference(version, "it is not loaded", start)


def examine_plan(version: VersionFolder, release: str, load: str) -> Iterator[Finding]:
    """Checks that Triton's TensorRT is the plan's, as far as the major version.

    Where even that is unknown, the command `load` shows it.
    """
    try:
        plan = read_header(version.require(PLAN_FILE)).version
    except (Unreadable, EngineError):  # no plan, or one that another check reports
        return
    major = tensorrt_major(release)
    if major is None:
        problem = f"the TensorRT of Triton {release} is unknown here; the plan needs {plan}"
        yield Finding(version.name, "triton", problem, load, is_fault=False)
    elif plan.partition(".")[0] != str(major):
        problem = differs(f"{PLAN_FILE}, TensorRT as in Triton {release}", f"{major}.x", plan)
        problem += "; build it in the container of Triton's release"
        yield Finding(version.name, "triton", problem, version.fix)


def tensorrt_major(release: str) -> int | None:
    """Returns the major version of TensorRT in a release of the server; None if unknown."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    return max(
        ((since, major) for since, major in TENSORRT_SINCE.items() if since <= version),
        default=(None, None),
    )[1]


def _one_line(reason: str) -> str:
    """Removes the traceback of a python backend."""
    return " ".join(reason.partition("\n\nAt:")[0].split())
