"""What can go wrong with a call, the same over both wires.

ConvoyError
├── InvalidRequest       an option or a field is wrong
├── BadImage             empty, corrupt, unsupported, too large, or without what the model reads
├── NotFound             no such model or version
├── Overloaded           more work than the gateway may hold: retry_after_s says when
├── DeadlineExceeded     no answer in time
├── Unavailable          not reachable, not ready, or shutting down: try again later
├── NotAllowed           no credentials, or not enough
└── ServerFault          the model or the gateway failed
"""

from __future__ import annotations


class ConvoyError(Exception):
    """`reason` is the gateway's word for it, such as IMAGE_DECODE_FAILED; it may be empty."""

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
    # This client never cancels: it is a server on its way out, which has not taken the call.
    "CANCELLED": Unavailable,
    "UNAUTHENTICATED": NotAllowed,
    "PERMISSION_DENIED": NotAllowed,
}


def from_code(
    code: str, message: str, reason: str, retry_after_s: float | None = None
) -> ConvoyError:
    """The error for a canonical gRPC code (both wires carry it) and the gateway's reason."""
    kind = BadImage if reason.startswith("IMAGE_") else _BY_CODE.get(code, ServerFault)
    return kind(message, reason, retry_after_s)
