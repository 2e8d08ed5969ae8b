"""Everything that can go wrong with a request, and with the start of the gateway.

    ServingError
    ├── MalformedRequest
    ├── ImageDecodeFailed     ImageUnsuitable  ImageFormatUnsupported  ImageTooLarge
    ├── ModelNotFound         VersionNotFound
    ├── AuthRequired          Forbidden        RateLimited
    ├── Overloaded            DeadlineExceeded
    ├── ModelNotReady         RunnerUnavailable  ShuttingDown
    ├── InferenceFailed
    └── InternalError

The classes know nothing of HTTP and gRPC. Each has a reason, which clients may rely on; the tables
below map reasons to the status codes of both, and a test checks that they are complete.
"""

from __future__ import annotations

from http import HTTPStatus

import grpc

# The domain of ErrorInfo, in which the reasons are unique.
DOMAIN = "convoy.v1"


MAX_QUOTED = 200  # characters of what a client sent, in an error or a line of the log


def cut(text: str) -> str:
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}…"


def quote(text: str) -> str:
    """For messages: in quotation marks, with escapes, and not too long."""
    return repr(cut(text))


class ClientLeft(Exception):
    """The client disconnected before it was answered."""


class Unimplemented(Exception):
    """There is no such method, or it is not for clients. The contract has no reason for it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ServingError(Exception):
    """A request that cannot be answered; the message says what happened, the value, the remedy."""

    reason = "INTERNAL"

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, **metadata: str
    ) -> None:
        super().__init__(message)
        self.message = message
        # Seconds after which the same request may succeed; None: retrying is no use.
        self.retry_after_s = retry_after_s
        # Facts for programs, such as model="resnet152"; clients of both APIs receive them.
        self.metadata = {name: cut(value) for name, value in metadata.items()}


class MalformedRequest(ServingError):
    """A required field is missing, or an option is out of range."""

    reason = "MALFORMED_REQUEST"


class ImageDecodeFailed(ServingError):
    """Empty, truncated or corrupt image data."""

    reason = "IMAGE_DECODE_FAILED"


class ImageUnsuitable(ServingError):
    """A valid image without what the model reads: no ink, or more than one mark."""

    reason = "IMAGE_UNSUITABLE"


class ImageFormatUnsupported(ServingError):
    """The image has a format that the gateway does not read."""

    reason = "IMAGE_FORMAT_UNSUPPORTED"


class ImageTooLarge(ServingError):
    """The image has more bytes or pixels than the gateway accepts."""

    reason = "IMAGE_TOO_LARGE"


class ModelNotFound(ServingError):
    """There is no model of that name."""

    reason = "MODEL_NOT_FOUND"


class VersionNotFound(ServingError):
    """The model exists, but that version of it is not loaded."""

    reason = "VERSION_NOT_FOUND"


class AuthRequired(ServingError):
    """The key is missing or unknown."""

    reason = "AUTH_REQUIRED"


class Forbidden(ServingError):
    """A valid key without access to this model, or a browser on behalf of another site."""

    reason = "FORBIDDEN"


class RateLimited(ServingError):
    """The client sends requests more often than its key allows."""

    reason = "RATE_LIMITED"


class Overloaded(ServingError):
    """More work than the gateway may hold, or can finish before the client's deadline."""

    reason = "OVERLOADED"


class DeadlineExceeded(ServingError):
    """The client's deadline passed before there was an answer."""

    reason = "DEADLINE_EXCEEDED"


class ModelNotReady(ServingError):
    """The model exists, but is loading or not proven."""

    reason = "MODEL_NOT_READY"


class RunnerUnavailable(ServingError):
    """The runner cannot be reached."""

    reason = "RUNNER_UNAVAILABLE"


class ShuttingDown(ServingError):
    """The gateway finishes its requests and accepts no new ones."""

    reason = "SHUTTING_DOWN"


class InferenceFailed(ServingError):
    """The runtime failed on this input."""

    reason = "INFERENCE_FAILED"


class InternalError(ServingError):
    """A fault of the gateway itself."""

    reason = "INTERNAL"


class StartFailed(Exception):
    """The gateway cannot start; the message says why and what to do, in one sentence."""


class TritonCannotStart(StartFailed):
    """No tritonserver can run here; the message says why and what helps."""


GRPC_STATUS: dict[str, grpc.StatusCode] = {
    "MALFORMED_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
    "IMAGE_DECODE_FAILED": grpc.StatusCode.INVALID_ARGUMENT,
    "IMAGE_UNSUITABLE": grpc.StatusCode.INVALID_ARGUMENT,
    "IMAGE_FORMAT_UNSUPPORTED": grpc.StatusCode.INVALID_ARGUMENT,
    "IMAGE_TOO_LARGE": grpc.StatusCode.INVALID_ARGUMENT,
    "MODEL_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "VERSION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "AUTH_REQUIRED": grpc.StatusCode.UNAUTHENTICATED,
    "FORBIDDEN": grpc.StatusCode.PERMISSION_DENIED,
    "RATE_LIMITED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "OVERLOADED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DEADLINE_EXCEEDED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "MODEL_NOT_READY": grpc.StatusCode.UNAVAILABLE,
    "RUNNER_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "SHUTTING_DOWN": grpc.StatusCode.UNAVAILABLE,
    "INFERENCE_FAILED": grpc.StatusCode.INTERNAL,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}

HTTP_STATUS: dict[str, HTTPStatus] = {
    "MALFORMED_REQUEST": HTTPStatus.BAD_REQUEST,
    "IMAGE_DECODE_FAILED": HTTPStatus.BAD_REQUEST,
    "IMAGE_UNSUITABLE": HTTPStatus.UNPROCESSABLE_ENTITY,
    "IMAGE_FORMAT_UNSUPPORTED": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "IMAGE_TOO_LARGE": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "MODEL_NOT_FOUND": HTTPStatus.NOT_FOUND,
    "VERSION_NOT_FOUND": HTTPStatus.NOT_FOUND,
    "AUTH_REQUIRED": HTTPStatus.UNAUTHORIZED,
    "FORBIDDEN": HTTPStatus.FORBIDDEN,
    "RATE_LIMITED": HTTPStatus.TOO_MANY_REQUESTS,
    "OVERLOADED": HTTPStatus.TOO_MANY_REQUESTS,
    "DEADLINE_EXCEEDED": HTTPStatus.GATEWAY_TIMEOUT,
    "MODEL_NOT_READY": HTTPStatus.SERVICE_UNAVAILABLE,
    "RUNNER_UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "SHUTTING_DOWN": HTTPStatus.SERVICE_UNAVAILABLE,
    "INFERENCE_FAILED": HTTPStatus.INTERNAL_SERVER_ERROR,
    "INTERNAL": HTTPStatus.INTERNAL_SERVER_ERROR,
}
