"""An error as google.rpc.Status: of a gRPC call, and of one item of several on either wire."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from convoy.v1 import classifier_pb2 as pb
from server.errors import DOMAIN, GRPC_STATUS, ServingError


def to_item_result(
    request_id: str, result: pb.ClassifyResponse | ServingError | None
) -> pb.ItemResult:
    if isinstance(result, ServingError):
        return pb.ItemResult(request_id=request_id, error=to_status(result))
    return pb.ItemResult(request_id=request_id, response=result)


def to_status(error: ServingError, request_id: str = "") -> status_pb2.Status:
    """With the details that apply; `request_id` is that of a whole call, which nothing else has."""
    code: tuple[int, str] = GRPC_STATUS[error.reason].value
    details = list(error_details(error))
    if request_id:
        details.append(error_details_pb2.RequestInfo(request_id=request_id))
    return status_pb2.Status(code=code[0], message=error.message, details=map(pack, details))


def pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def error_details(error: ServingError) -> Iterator[Message]:
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after_s * 1e3))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if "field" in error.metadata:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.metadata["field"], description=error.message
        )
        yield error_details_pb2.BadRequest(field_violations=[violation])
    if "model" in error.metadata:
        yield error_details_pb2.ResourceInfo(
            resource_type="model", resource_name=error.metadata["model"]
        )
