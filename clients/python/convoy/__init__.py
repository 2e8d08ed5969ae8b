"""Client library of Convoy, a service for image classification."""

from convoy.client import DEFAULT_SERVER, DEFAULT_TIMEOUT_S, Class, Classification, Client
from convoy.errors import (
    BadImage,
    ConvoyError,
    DeadlineExceeded,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Overloaded,
    ServerFault,
    Unavailable,
)

__all__ = [
    "DEFAULT_SERVER",
    "DEFAULT_TIMEOUT_S",
    "BadImage",
    "Class",
    "Classification",
    "Client",
    "ConvoyError",
    "DeadlineExceeded",
    "InvalidRequest",
    "NotAllowed",
    "NotFound",
    "Overloaded",
    "ServerFault",
    "Unavailable",
]
