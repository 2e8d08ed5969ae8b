"""The gRPC server on its port, and what one client may hold of it.

One port carries convoy.v1.ImageClassifier, the services of other contracts, grpc.health.v1 and
server reflection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from convoy.v1 import classifier_pb2 as pb
from server.core.ledger import Ledger
from server.core.service import Service
from server.grpc_api.health import Health
from server.grpc_api.interceptors import ErrorInterceptor
from server.grpc_api.servicer import ImageClassifier
from server.network.tls import Tls
from server.settings import Settings

IMAGE_CLASSIFIER = pb.DESCRIPTOR.services_by_name["ImageClassifier"]
# Requests a little over the limit must reach us, so that we answer them and not gRPC.
SLACK_BYTES = 1 << 20
# One bit per algorithm: the first one leaves messages as they are.
NO_COMPRESSION = 1
# A client whose machine went away leaves its connection open, so the server pings it.
PING_INTERVAL_S = 60.0
PING_TIMEOUT_S = 20.0
# A client that pings more often than this is disconnected, whether it has a call or not.
MIN_PING_INTERVAL_S = 10.0
# A connection without calls ends after one to two times this; its client's next call opens another.
MAX_IDLE_S = 120.0


class GrpcServer:
    """The server on its port; `servicers` are those of other contracts.

    A servicer's methods take the raw bytes of their messages.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        tls: Tls | None,
        servicers: Mapping[ServiceDescriptor, object],
        ledger: Ledger | None = None,
    ) -> None:
        self._server = grpc.aio.server(
            interceptors=[ErrorInterceptor(service)],
            options=[
                ("grpc.max_receive_message_length", settings.max_request_bytes + SLACK_BYTES),
                ("grpc.max_send_message_length", -1),
                # Two gateways on one port would share its connections unnoticed; workers of one
                # gateway are meant to.
                ("grpc.so_reuseport", int(ledger is not None)),
                # A small message could become a large one; images are compressed already.
                ("grpc.compression_enabled_algorithms_bitset", NO_COMPRESSION),
                *grpc_options(settings, ledger),
            ],
        )
        servicers = {IMAGE_CLASSIFIER: ImageClassifier(service), **servicers}
        self._server.add_generic_rpc_handlers(
            tuple(raw_handlers(contract, servicer) for contract, servicer in servicers.items())
        )
        self._health = Health(("", IMAGE_CLASSIFIER.full_name))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [contract.full_name for contract in servicers]
        reflection.enable_server_reflection(
            (*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self.port = (
            self._server.add_secure_port(settings.grpc_address, tls.grpc_credentials())
            if tls
            else self._server.add_insecure_port(settings.grpc_address)
        )

    async def start(self) -> None:
        await self._server.start()

    async def show_readiness(self, is_ready: bool) -> None:
        await self._health.show(is_ready)

    async def stop(self, grace_s: float) -> None:
        """Accepts nothing new, and gives what is in flight `grace_s` to finish."""
        await self._server.stop(grace_s)


def raw_handlers(contract: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
    """The methods of a contract; without a deserializer, messages come as their bytes."""
    handlers = {}
    for method in contract.methods:
        to_handler: Any = (
            grpc.stream_stream_rpc_method_handler
            if method.client_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        handlers[method.name] = to_handler(getattr(servicer, method.name), None, serialize)
    return grpc.method_handlers_generic_handler(contract.full_name, handlers)


def serialize(message: Message) -> bytes:
    return message.SerializeToString()


def grpc_options(settings: Settings, ledger: Ledger | None = None) -> list[tuple[str, int]]:
    """What one client may hold; interceptors time messages, for which gRPC has no option."""
    most = settings.max_connections
    return [
        # gRPC counts them itself: each worker has its share of them.
        ("grpc.max_allowed_incoming_connections", ledger.share_of(most) if ledger else most),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # Without this gRPC resets calls of a client that has more at once, instead of letting it
        # wait.
        ("grpc.http.overload_protection", 0),
        # Between a soft and a hard limit gRPC refuses at random; here they are equal.
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        ("grpc.server_handshake_timeout_ms", to_ms(settings.header_timeout_s)),
        ("grpc.keepalive_time_ms", to_ms(PING_INTERVAL_S)),
        ("grpc.keepalive_timeout_ms", to_ms(PING_TIMEOUT_S)),
        ("grpc.http2.min_ping_interval_without_data_ms", to_ms(MIN_PING_INTERVAL_S)),
        # Otherwise gRPC's limit for connections without calls is two hours.
        ("grpc.keepalive_permit_without_calls", 1),
        # Otherwise gRPC takes in megabytes of each message that nobody reads yet. A message that is
        # read gets the window that it needs.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_connection_idle_ms", to_ms(MAX_IDLE_S)),
    ]


def to_ms(seconds: float) -> int:
    return max(1, round(seconds * 1e3))
