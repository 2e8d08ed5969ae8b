"""Client library of Convoy, a service for image classification."""

from convoy.client import Class, Classification, Client
from convoy.errors import ConvoyError

__all__ = ["Class", "Classification", "Client", "ConvoyError"]
