"""The errors of a call, the same over both transports.

ConvoyError
├── InvalidRequest       an option or a field is wrong
├── BadImage             empty, corrupt, unsupported, too large, or without a digit to read
├── NotFound             the gateway has no such model or version
├── Overloaded           the gateway is at its limit: retry after retry_after_s
├── DeadlineExceeded     no answer in time
├── Unavailable          not reachable, not ready, or shutting down: retry later
├── NotAllowed           credentials are missing or insufficient
└── ServerFault          the model or the gateway failed
"""

from __future__ import annotations


class ConvoyError(Exception):
    """`reason` is the gateway's code, such as IMAGE_DECODE_FAILED; it may be empty."""

    def __init__(self, message: str, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class InvalidRequest(ConvoyError):
    pass


class BadImage(ConvoyError):
    pass


class NotFound(ConvoyError):
    pass


class Overloaded(ConvoyError):
    pass


class DeadlineExceeded(ConvoyError):
    pass


class Unavailable(ConvoyError):
    pass


class NotAllowed(ConvoyError):
    pass


class ServerFault(ConvoyError):
    pass


_BY_CODE: dict[str, type[ConvoyError]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "UNIMPLEMENTED": InvalidRequest,
    "NOT_FOUND": NotFound,
    "RESOURCE_EXHAUSTED": Overloaded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unavailable,
    # This client never cancels: a server that shuts down has not accepted the call.
    "CANCELLED": Unavailable,
    "UNAUTHENTICATED": NotAllowed,
    "PERMISSION_DENIED": NotAllowed,
}


def from_code(
    code: str, message: str, reason: str, retry_after_s: float | None = None
) -> ConvoyError:
    """The error for a canonical gRPC code (both transports carry it) and the gateway's reason."""
    kind = BadImage if reason.startswith("IMAGE_") else _BY_CODE.get(code, ServerFault)
    return kind(message, reason, retry_after_s)
