"""From a request of this protocol to those of `server.core`, and from their responses back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2

from convoy.v1 import classifier_pb2 as pb
from server.core.call import Call, RequestedImage
from server.core.validation import check_request_id
from server.errors import MalformedRequest, ServingError, cut
from server.open_inference.tensors import (
    Tensor,
    check_parameters,
    output_names,
    read_images,
    to_tensors,
)
from server.tasks import run_in_thread_if_large
from server.versions.pool import Pool
from server.versions.state import Servable

# A value of an answer takes as long to write as so many bytes of a request to read.
VALUE_BYTES = 128
MAX_INT32 = 2**31 - 1
# What clients of other servers send along, and what means nothing here.
IGNORED_PARAMETERS = {
    "binary_data_output",
    "headers",
    "priority",
    "sequence_end",
    "sequence_id",
    "sequence_start",
}


@dataclass(frozen=True)
class InferenceAnswer:
    """What both wires answer, each in its own form."""

    model: str
    version: str
    parameters: dict[str, str]
    outputs: list[Tensor]


async def to_requests(
    call: Call,
    message: service_pb2.ModelInferRequest,
    servable: Servable | None,
    max_batch_requests: int,
) -> list[pb.ClassifyRequest]:
    """One request for each image; identifies the call, and shortens its deadline.

    Raises:
        MalformedRequest: the id, a parameter, an output or the input is invalid.
    """
    check_request_id(message.id)
    call.identify(message.model_name, message.id)
    output_names(message)
    call.set_timeout(parse_timeout(message.parameters))
    size = call.reservation.n_bytes
    images = await run_in_thread_if_large(size, read_images, message, max_batch_requests)
    return await run_in_thread_if_large(
        size, build_requests, message, call.request_id, images, servable
    )


def find_servable(pool: Pool, message: service_pb2.ModelInferRequest) -> Servable | None:
    """None where nothing answers: `server.core` reports why."""
    with contextlib.suppress(ServingError):
        return pool.resolve(message.model_name, message.model_version)
    return None


def build_requests(
    message: service_pb2.ModelInferRequest,
    request_id: str,
    images: Sequence[bytes],
    servable: Servable | None,
) -> list[pb.ClassifyRequest]:
    """One version answers all, even if the default moves meanwhile."""
    top_k = parse_top_k(message.parameters)
    version = servable.version if servable and len(images) > 1 else message.model_version
    return [
        pb.ClassifyRequest(
            model=message.model_name,
            version=version,
            image=pb.Image(content=image),
            top_k=top_k,
            min_score=0,  # a tensor has as many classes for each image, whatever their thresholds
            request_id=request_id,
        )
        for image in images
    ]


def require_responses(images: Sequence[RequestedImage]) -> list[pb.ClassifyResponse]:
    """
    Raises:
        ServingError: the protocol has no status for each image, so one that fails fails all.
    """
    results = [image.result for image in images]
    responses = [result for result in results if isinstance(result, pb.ClassifyResponse)]
    errors = {
        index: result for index, result in enumerate(results) if isinstance(result, ServingError)
    }
    if errors:
        index, first = next(iter(errors.items()))
        # What is wrong with all alike, such as the model's name, is not the fault of one image.
        is_common = not responses and len({error.message for error in errors.values()}) == 1
        raise first if is_common else error_of_image(index, first)
    return responses


def error_of_image(index: int, error: ServingError) -> ServingError:
    facts = {**error.metadata, "image_index": str(index)}
    message = f"image {index}: {error.message}"
    return type(error)(message, retry_after_s=error.retry_after_s, **facts)


async def to_answer(
    responses: Sequence[pb.ClassifyResponse], message: service_pb2.ModelInferRequest
) -> InferenceAnswer:
    names = output_names(message)
    n_values = len(names) * sum(len(response.classes) for response in responses)
    return await run_in_thread_if_large(n_values * VALUE_BYTES, build_answer, responses, names)


def build_answer(responses: Sequence[pb.ClassifyResponse], names: Sequence[str]) -> InferenceAnswer:
    first = responses[0]
    facts = {
        "manifest_digest": first.served.manifest_digest,
        "weights": first.served.weights,
    }
    return InferenceAnswer(first.model, first.version, facts, to_tensors(responses, names))


# ---------------------------------------------------------------- parameters


def parse_top_k(parameters: Mapping[str, Any]) -> int | None:
    known = {"top_k", "timeout"}
    others = {
        name: value
        for name, value in parameters.items()
        if name not in IGNORED_PARAMETERS and not name.startswith("triton_")
    }
    check_parameters(others, known, "the request")
    return whole_number(parameters, "top_k", at_least=1)


def parse_timeout(parameters: Mapping[str, Any]) -> float | None:
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
            f"{name} is {cut(repr(value))}, must be a whole number, at least {at_least}", field=name
        )
    return min(int(value), MAX_INT32)
