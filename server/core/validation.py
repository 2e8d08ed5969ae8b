"""What a request must be before anything is done for it."""

from __future__ import annotations

from convoy.v1 import classifier_pb2 as pb
from server.errors import MalformedRequest

MAX_REQUEST_ID_LENGTH = 128
KINDS_OF_EVIDENCE = {value: name for name, value in pb.Evidence.items() if value}


def check_request(request: pb.ClassifyRequest) -> None:
    """Checks all but the image's content.

    Raises:
        MalformedRequest: a field is missing or out of its range.
    """
    if not request.model:
        raise MalformedRequest("model is empty; name one, such as lenet5", field="model")
    if not request.HasField("image"):
        raise MalformedRequest("image is missing; its content is a file's bytes", field="image")
    check_options(request)


def check_options(request: pb.ClassifyRequest) -> None:
    """
    Raises:
        MalformedRequest: an option is out of its range.
    """
    if request.HasField("top_k") and request.top_k < 1:
        raise MalformedRequest(f"top_k is {request.top_k}, must be at least 1", field="top_k")
    if request.HasField("min_score") and not 0 <= request.min_score <= 1:
        raise MalformedRequest(
            f"min_score is {request.min_score:g}, must be between 0 and 1", field="min_score"
        )
    for kind in request.include:
        if kind not in KINDS_OF_EVIDENCE:
            raise MalformedRequest(
                f"include has {pb.Evidence.Name(kind) if kind == 0 else kind}, must be of "
                f"{', '.join(KINDS_OF_EVIDENCE.values())}",
                field="include",
            )
    check_request_id(request.request_id)


def check_request_id(request_id: str) -> None:
    """
    Raises:
        MalformedRequest: it is too long, or would break a line of the log.
    """
    if request_id and not is_request_id(request_id):
        raise MalformedRequest(
            f"request_id must be at most {MAX_REQUEST_ID_LENGTH} printable characters",
            field="request_id",
        )


def is_request_id(text: str) -> bool:
    return 0 < len(text) <= MAX_REQUEST_ID_LENGTH and text.isprintable()


def check_batch_size(n_requests: int, max_batch_requests: int) -> None:
    """
    Raises:
        MalformedRequest: there are none, or too many.
    """
    if not 1 <= n_requests <= max_batch_requests:
        raise MalformedRequest(
            f"the batch has {n_requests} requests, must be 1 to {max_batch_requests}",
            field="requests",
        )
