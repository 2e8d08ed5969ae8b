"""What one client may hold of the gRPC door; `http_server` does the same for HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.settings import Settings

# A client whose machine went away leaves its connection open: the server asks after it.
PING_INTERVAL_S = 60.0
PING_TIMEOUT_S = 20.0
# A client that pings more often than this is told to go away.
MIN_PING_INTERVAL_S = 10.0


def grpc_limits(settings: Settings) -> list[tuple[str, int]]:
    """Options of a server; `grpc_faults` has the time-out of messages, for which gRPC has none."""
    return [
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # Without this gRPC resets calls of a client that has more at once, instead of letting it
        # wait.
        ("grpc.http.overload_protection", 0),
        # Between a soft and a hard limit gRPC refuses by chance; here they are one.
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        ("grpc.server_handshake_timeout_ms", to_ms(settings.header_timeout_s)),
        ("grpc.keepalive_time_ms", to_ms(PING_INTERVAL_S)),
        ("grpc.keepalive_timeout_ms", to_ms(PING_TIMEOUT_S)),
        ("grpc.http2.min_ping_interval_without_data_ms", to_ms(MIN_PING_INTERVAL_S)),
    ]


def to_ms(seconds: float) -> int:
    return max(1, round(seconds * 1e3))
