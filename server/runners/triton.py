"""Models run by a Triton server that somebody else started, over gRPC.

Batching, placement and instances are Triton's, as config.pbtxt says. Every version is a Triton
model of its own (`lenet5.v2`) whose numeric version is always 1. Triton should run with
`--model-control-mode=explicit`; without it, the models that Triton itself loaded are used.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.grpc.aio import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from server.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelNotReady,
    RunnerUnavailable,
    ServingError,
)
from server.folder_names import FOLDER_NAME, TRACE
from server.observability import tracing
from server.runners.base import (
    MAX_LOAD_S,
    POLL_INTERVAL_S,
    Fingerprint,
    Inference,
    LoadedModel,
    LoadFailed,
    RepositoryEmpty,
    RepositoryLost,
    parse_facts,
)

logger = logging.getLogger(__name__)

_TRITON_VERSION = "1"
_OUTPUTS = [InferRequestedOutput("probabilities"), InferRequestedOutput("batch_size")]
_STATISTICS_TIMEOUT_S = 1.0  # a Triton that hangs must not hold up Prometheus

# They replace tritonclient's own, the message limits included.
_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # Back within half a second of Triton's return.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A pulled cable is noticed within 15 s. Triton takes more frequent pings for an attack,
    # unless its own keepalive flags allow them.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Otherwise a peer that keeps the connection and is silent is given up after 60 s.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # No internet proxy belongs between the gateway and its Triton.
    ("grpc.enable_http_proxy", 0),
]


class TritonRunner:
    """A `Runner` for one address, HOST:PORT."""

    def __init__(
        self, address: str, *, control_timeout_s: float = 5.0, load_timeout_s: float = MAX_LOAD_S
    ) -> None:
        self.address = address
        self._control_timeout_s = control_timeout_s
        self._load_timeout_s = load_timeout_s
        # Versions whose Python process died. Triton still reports them as ready, and loading them
        # changes nothing: they must be unloaded first.
        self._dead: set[str] = set()
        self._load_numbers = itertools.count()
        self._loads: dict[str, int] = {}  # the number of each version's last load

    @cached_property
    def _client(self) -> InferenceServerClient:
        """Created when first used: a channel belongs to the event loop in which it is created."""
        return InferenceServerClient(self.address, channel_args=_CHANNEL_OPTIONS)

    async def index(self) -> dict[str, bool]:
        try:
            index = await self._client.get_model_repository_index(
                client_timeout=self._control_timeout_s
            )
        except InferenceServerException as error:
            raise self._index_error(error) from error
        if not any(TRACE.fullmatch(entry.name) for entry in index.models):
            raise RepositoryEmpty(f"the model repository of {self.address} is empty")
        ready = {entry.name for entry in index.models if entry.state == "READY"} - self._dead
        names = {entry.name for entry in index.models if FOLDER_NAME.fullmatch(entry.name)}
        return {name: name in ready for name in sorted(names)}

    async def fingerprint(self, name: str) -> Fingerprint:
        return None

    async def load(self, name: str) -> LoadedModel:
        try:
            config = await self._load(name)
        except InferenceServerException as error:
            raise self._load_error(name, error) from error
        self._dead.discard(name)
        self._loads[name] = next(self._load_numbers)
        _check_contract(name, config)
        facts = await asyncio.to_thread(parse_facts, config)  # a thousand labels: milliseconds
        runtime = f"triton {config.backend or config.platform}"
        return LoadedModel(facts, runtime, _device(config), max(1, config.max_batch_size))

    async def unload(self, name: str) -> None:
        try:
            await self._client.unload_model(name, client_timeout=self._control_timeout_s)
        except InferenceServerException as error:
            if not _control_is_closed(error):
                raise self._unavailable(error) from error
        else:
            self._dead.discard(name)
            self._loads.pop(name, None)

    async def infer(
        self,
        name: str,
        images: npt.NDArray[np.uint8],
        timeout_s: float | None = None,
        outputs: Sequence[str] = (),
    ) -> Inference:
        if name in self._dead:
            raise ModelNotReady(
                f"{name} is restarting: its process died", retry_after_s=POLL_INTERVAL_S
            )
        image = InferInput("image", images.shape, "UINT8")
        image.set_data_from_numpy(images)
        requested = [*_OUTPUTS, *map(InferRequestedOutput, outputs)]
        load_number = self._loads.get(name)
        try:
            # Precise to the microsecond; gRPC checks its own deadlines every millisecond or later.
            async with asyncio.timeout(timeout_s):
                result = await self._client.infer(
                    name, [image], _TRITON_VERSION, requested, headers=tracing.headers()
                )
        except TimeoutError as error:
            raise DeadlineExceeded(f"{name} did not answer within {timeout_s:.3f} s") from error
        except InferenceServerException as error:
            # A late answer says nothing of a version that was reloaded meanwhile.
            if _backend_died(error) and self._loads.get(name) == load_number:
                self._dead.add(name)
            raise self._infer_error(name, error) from error
        return Inference(
            result.as_numpy("probabilities"),
            int(result.as_numpy("batch_size")[0, 0]),
            outputs={name: result.as_numpy(name) for name in outputs},
        )

    async def statistics(self) -> list[service_pb2.ModelStatistics]:
        """What Triton has counted for each loaded version; for /metrics, and not part of `Runner`.

        Raises:
            RunnerUnavailable: Triton does not answer within a second.
        """
        try:
            answer = await self._client.get_inference_statistics(
                client_timeout=_STATISTICS_TIMEOUT_S
            )
        except InferenceServerException as error:
            raise self._unavailable(error) from error
        return list(answer.model_stats)

    async def close(self) -> None:
        await self._client.close()

    async def _is_live(self) -> bool:
        try:
            return bool(await self._client.is_server_live(client_timeout=self._control_timeout_s))
        except InferenceServerException:
            return False

    async def _load(self, name: str) -> model_config_pb2.ModelConfig:
        is_dead = name in self._dead
        if is_dead:
            await self.unload(name)
        is_ready = await self._client.is_model_ready(
            name, _TRITON_VERSION, client_timeout=self._control_timeout_s
        )
        if not is_ready or is_dead:
            await self._client.load_model(name, client_timeout=self._load_timeout_s)
        response = await self._client.get_model_config(
            name, _TRITON_VERSION, client_timeout=self._control_timeout_s
        )
        return response.config

    def _index_error(self, error: InferenceServerException) -> Exception:
        if error.status() in ("StatusCode.INTERNAL", "StatusCode.NOT_FOUND"):
            return RepositoryLost(
                f"Triton at {self.address} cannot read its model repository: {_plain(error)}"
            )
        return self._unavailable(error)

    def _load_error(self, name: str, error: InferenceServerException) -> Exception:
        if _control_is_closed(error):
            return LoadFailed(
                f"{name} is not ready in the Triton at {self.address}, which does not allow "
                "loading models; start it with --model-control-mode=explicit"
            )
        if _not_loaded(error):
            return LoadFailed(f"{name} was unloaded while it was loading")
        if error.status() == "StatusCode.DEADLINE_EXCEEDED":
            return LoadFailed(f"{name} did not load within {self._load_timeout_s:.0f} s")
        if error.status() == "StatusCode.UNAVAILABLE":
            return self._unavailable(error)
        if error.message().endswith("failed to poll from model repository"):
            return LoadFailed(
                f"{name} has no folder in Triton's model repository, or its config.pbtxt is "
                "missing or invalid; see Triton's log"
            )
        return LoadFailed(f"{name} does not load: {_plain(error)}")

    def _infer_error(self, name: str, error: InferenceServerException) -> ServingError:
        if _not_loaded(error):
            return ModelNotReady(f"{name} is not loaded", retry_after_s=POLL_INTERVAL_S)
        if _backend_died(error):
            return RunnerUnavailable(
                f"the process that ran {name} died", retry_after_s=POLL_INTERVAL_S
            )
        if error.status() == "StatusCode.UNAVAILABLE":
            return self._unavailable(error)
        return InferenceFailed(f"{name} failed on this input: {_plain(error)}")

    def _unavailable(self, error: InferenceServerException) -> RunnerUnavailable:
        logger.debug("Triton at %s: %s", self.address, error)
        return RunnerUnavailable(
            f"Triton at {self.address} cannot be reached", retry_after_s=POLL_INTERVAL_S
        )


def _check_contract(name: str, config: model_config_pb2.ModelConfig) -> None:
    inputs = {tensor.name: tensor.data_type for tensor in config.input}
    outputs = {tensor.name for tensor in config.output}
    if (
        inputs != {"image": model_config_pb2.TYPE_UINT8}
        or not {"probabilities", "batch_size"} <= outputs
    ):
        raise LoadFailed(
            f"{name} has inputs {', '.join(sorted(inputs))} and outputs "
            f"{', '.join(sorted(outputs))}; expected the input image, of uint8, and the outputs "
            "probabilities and batch_size"
        )


def _device(config: model_config_pb2.ModelConfig) -> str:
    """In the config of a loaded version, Triton has resolved KIND_AUTO."""
    kinds = {group.kind for group in config.instance_group}
    return "gpu" if model_config_pb2.ModelInstanceGroup.KIND_GPU in kinds else "cpu"


def _not_loaded(error: InferenceServerException) -> bool:
    return error.status() == "StatusCode.NOT_FOUND" or "not at ready state" in error.message()


def _backend_died(error: InferenceServerException) -> bool:
    return "Stub process" in error.message() and "is not healthy" in error.message()


def _control_is_closed(error: InferenceServerException) -> bool:
    return "explicit model load / unload is not allowed" in error.message()


def _plain(error: InferenceServerException) -> str:
    """Triton's message in one line, without folders, traceback and preamble."""
    text = re.split(r"\n\nAt:| NOTE: ", error.message())[0]
    text = re.sub(r"^\[request id: [^]]*\] |^load failed for model .*? state: Internal: ", "", text)
    text = re.sub(r"(?:/[^\s/:'\"]+)+/", "", text)
    return " ".join(text.split()).rstrip(";, ")
