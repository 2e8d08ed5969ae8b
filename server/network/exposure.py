"""Where clients have to authenticate: wherever other machines can reach the gateway."""

from __future__ import annotations

import logging

from server.errors import StartFailed
from server.network.addresses import is_local
from server.settings import Settings

logger = logging.getLogger(__name__)


def check_exposure(settings: Settings) -> None:
    """Refuses to serve other machines without authentication, unless the operator allows it.

    Raises:
        StartFailed: other machines could use the models without authentication.
    """
    has_keys = settings.api_keys is not None
    if has_keys and not settings.tls_certificate and is_exposed(settings):
        logger.warning("keys and images cross the network unencrypted: give --tls-certificate")
    if has_keys or settings.tls_client_ca or settings.allow_unauthenticated:
        return
    for name in ("http_address", "grpc_address"):
        address = getattr(settings, name)
        if not is_local(address):
            raise StartFailed(
                f"--{name.replace('_', '-')} {address} can be reached from other machines without "
                "authentication: give --api-keys or --tls-client-ca, or --allow-unauthenticated"
            )


def is_exposed(settings: Settings) -> bool:
    """Whether other machines can reach a port for clients."""
    return not (is_local(settings.http_address) and is_local(settings.grpc_address))
