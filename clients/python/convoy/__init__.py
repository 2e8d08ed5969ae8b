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
from convoy.evidence import Heatmap, SeenImage, Unfamiliar

__all__ = [
    "DEFAULT_SERVER",
    "DEFAULT_TIMEOUT_S",
    "BadImage",
    "Class",
    "Classification",
    "Client",
    "ConvoyError",
    "DeadlineExceeded",
    "Heatmap",
    "InvalidRequest",
    "NotAllowed",
    "NotFound",
    "Overloaded",
    "SeenImage",
    "ServerFault",
    "Unavailable",
    "Unfamiliar",
]
