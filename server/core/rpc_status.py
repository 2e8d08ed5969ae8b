"""An error as google.rpc.Status: of a gRPC call, and of one item of several on either wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from convoy.v1 import classifier_pb2 as pb
from server.errors import DOMAIN, GRPC_STATUS, ServingError

if TYPE_CHECKING:
    from server.core.classifier import Item


def result_of(item: Item) -> pb.ItemResult:
    if isinstance(item.result, ServingError):
        return pb.ItemResult(request_id=item.request_id, error=status_of(item.result))
    return pb.ItemResult(request_id=item.request_id, response=item.result)


def status_of(error: ServingError) -> status_pb2.Status:
    """With the details that apply."""
    code: tuple[int, str] = GRPC_STATUS[error.reason].value
    details = []
    for message in details_of(error):
        packed = any_pb2.Any()
        packed.Pack(message)
        details.append(packed)
    return status_pb2.Status(code=code[0], message=error.message, details=details)


def details_of(error: ServingError) -> Iterator[Message]:
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
