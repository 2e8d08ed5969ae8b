"""A request of either wire on its way: images, the one path of every classification, tensors."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tritonclient.grpc import service_pb2

from convoy.v1 import classifier_pb2 as pb
from server.core.admission import Admission
from server.core.classifier import Classifier, Item, new_id
from server.core.keys import Keys, client_name
from server.errors import MalformedRequest, ServingError
from server.open_inference.model_statistics import Statistics
from server.open_inference.tensors import (
    Tensor,
    check_parameters,
    images_of,
    names_of,
    tensors_of,
)
from server.versions.manager import Servable
from server.versions.pool import Pool

# Translating more than this would hold the event loop for more than 2 ms.
LARGE_BYTES = 256 << 10
# A value of an answer takes as long as so many bytes of a request.
VALUE_BYTES = 128
LARGEST_INT32 = 2**31 - 1
# What clients of other servers send along, and what means nothing here.
PASSED_OVER = {
    "binary_data_output",
    "headers",
    "priority",
    "sequence_end",
    "sequence_id",
    "sequence_start",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What both wires answer, each in its own form."""

    model: str
    version: str
    parameters: dict[str, str]
    outputs: list[Tensor]


class OpenInference:
    """What both doors share."""

    def __init__(
        self,
        classifier: Classifier,
        pool: Pool,
        admission: Admission,
        is_ready: Callable[[], bool],
        *,
        keys: Keys | None,
        max_request_bytes: int,
        max_batch_requests: int,
    ) -> None:
        self.classifier = classifier
        self.pool = pool
        self.admission = admission
        self.is_ready = is_ready
        self._keys = keys
        self.max_request_bytes = max_request_bytes
        self.max_batch_requests = max_batch_requests
        self.statistics = Statistics(pool)

    async def answer(
        self,
        request: service_pb2.ModelInferRequest,
        n_bytes: int,
        timeout_s: float | None,
        request_id: str = "",
    ) -> Answer:
        """Answers a request, whose images have n_bytes in all; `request_id` is for one without.

        Raises:
            ServingError: the protocol has no status for each image, so one that fails fails all.
        """
        started_s = time.monotonic()
        servable = self._servable(request)
        try:
            with self.classifier.arriving(request.model_name):
                names = names_of(request)
                timeout_s = shorter(timeout_s, timeout_of(request.parameters))
                images = await aside(n_bytes, images_of, request, self.max_batch_requests)
                request_id = request.id or request_id or new_id()
                requests = await aside(n_bytes, requests_of, request, request_id, images, servable)
            answers = answers_of(await self.classifier.classify_batch(requests, timeout_s))
        except ServingError:
            if servable:
                self.statistics.failed(servable, time.monotonic() - started_s)
            raise
        self.statistics.answered(answers, time.monotonic() - started_s)
        n_values = len(names) * sum(len(each.classes) for each in answers)
        return await aside(n_values * VALUE_BYTES, answer_of, answers, names)

    def charge(self) -> None:
        """For each request of a stream, which the door has charged for as one.

        Raises:
            AuthRequired, RateLimited: the key is none any more, or has come too often.
        """
        if self._keys:
            self._keys.charge(client_name.get())

    def _servable(self, request: service_pb2.ModelInferRequest) -> Servable | None:
        # What there is not is told, counted and logged by the classifier.
        with contextlib.suppress(ServingError):
            return self.pool.resolve(request.model_name, request.model_version)
        return None


def requests_of(
    request: service_pb2.ModelInferRequest,
    request_id: str,
    images: Sequence[bytes],
    servable: Servable | None,
) -> list[pb.ClassifyRequest]:
    """A request for each image; one version answers all, even if the default moves meanwhile."""
    top_k = top_k_of(request.parameters)
    version = servable.version if servable and len(images) > 1 else request.model_version
    return [
        pb.ClassifyRequest(
            model=request.model_name,
            version=version,
            image=pb.Image(content=image),
            top_k=top_k,
            request_id=request_id,
        )
        for image in images
    ]


def answers_of(items: Sequence[Item]) -> list[pb.ClassifyResponse]:
    results = [item.result for item in items]
    answers = [result for result in results if isinstance(result, pb.ClassifyResponse)]
    errors = {
        index: result for index, result in enumerate(results) if isinstance(result, ServingError)
    }
    if errors:
        index, first = next(iter(errors.items()))
        # What is wrong with all alike, such as the model's name, is no image's fault.
        is_of_all = not answers and len({error.message for error in errors.values()}) == 1
        raise first if is_of_all else of_image(index, first)
    return answers


def of_image(index: int, error: ServingError) -> ServingError:
    facts = {**error.metadata, "image_index": str(index)}
    message = f"image {index}: {error.message}"
    return type(error)(message, retry_after_s=error.retry_after_s, **facts)


def answer_of(answers: Sequence[pb.ClassifyResponse], names: Sequence[str]) -> Answer:
    first = answers[0]
    facts = {
        "manifest_digest": first.served.manifest_digest,
        "weights": first.served.weights,
    }
    outputs = tensors_of(answers, names)
    return Answer(first.model, first.version, facts, outputs)


# ---------------------------------------------------------------- parameters


def top_k_of(parameters: Mapping[str, Any]) -> int | None:
    known = {"top_k", "timeout"}
    others = {
        name: value
        for name, value in parameters.items()
        if name not in PASSED_OVER and not name.startswith("triton_")
    }
    check_parameters(others, known, "the request")
    return whole_number(parameters, "top_k", at_least=1)


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Seconds; Triton's clients give microseconds, and 0 for none."""
    timeout_us = whole_number(parameters, "timeout", at_least=0)
    return timeout_us / 1e6 if timeout_us else None


def whole_number(parameters: Mapping[str, Any], name: str, *, at_least: int) -> int | None:
    if name not in parameters:
        return None
    kind = parameters[name].WhichOneof("parameter_choice") or "string_param"
    value = getattr(parameters[name], kind)
    if kind not in ("int64_param", "uint64_param") or value < at_least:
        raise MalformedRequest(
            f"{name} is {value!r}, must be a whole number, at least {at_least}", field=name
        )
    return min(int(value), LARGEST_INT32)


def shorter(one_s: float | None, other_s: float | None) -> float | None:
    given = [timeout_s for timeout_s in (one_s, other_s) if timeout_s is not None]
    return min(given, default=None)


async def aside(n_bytes: int, translate: Callable[..., T], *arguments: Any) -> T:
    """Translates in a thread what would hold the event loop for long."""
    if n_bytes > LARGE_BYTES:
        return await asyncio.to_thread(translate, *arguments)
    return translate(*arguments)
