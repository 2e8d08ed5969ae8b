"""Where clients have to authenticate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.errors import StartFailed
from server.network.exposure import check_exposure
from server.settings import Settings


@pytest.mark.parametrize(
    ("fields", "is_refused"),
    [
        ({"http_address": "0.0.0.0:8080"}, True),
        ({"grpc_address": "0.0.0.0:8081"}, True),
        ({"http_address": "0.0.0.0:8080", "allow_unauthenticated": True}, False),
        ({"http_address": "0.0.0.0:8080", "api_keys": Path("keys.toml")}, False),
        ({"http_address": "0.0.0.0:8080", "tls_client_ca": Path("ca.pem")}, False),
        ({"http_address": "0.0.0.0:8080", "tls_certificate": Path("c.pem")}, True),
        ({"http_address": "unix:/tmp/http.sock"}, False),
        ({"metrics_address": "0.0.0.0:8082"}, False),
        ({}, False),
    ],
)
def test_an_exposed_address_needs_authentication_or_the_operators_consent(
    fields: dict[str, Any], is_refused: bool
) -> None:
    settings = Settings(**fields)
    if is_refused:
        with pytest.raises(StartFailed, match="--allow-unauthenticated"):
            check_exposure(settings)
    else:
        check_exposure(settings)
