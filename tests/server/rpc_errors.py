"""What an error over gRPC carries besides its code and its message."""

from __future__ import annotations

from typing import Any, cast

import grpc
from grpc_status import rpc_status


def rpc_details(error: grpc.RpcError) -> list[Any]:
    """The details of the error's google.rpc.Status, packed; none if it carries no status."""
    status = rpc_status.from_call(cast(grpc.Call, error))  # the types of gRPC keep the two apart
    return list(status.details) if status else []
