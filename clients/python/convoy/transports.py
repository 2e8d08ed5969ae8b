"""The two transports, gRPC and HTTP. A call sends a message of the contract and returns another."""

from __future__ import annotations

import itertools
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar
from urllib.parse import quote

import grpc
import httpx
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from convoy import errors
from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc

CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
Answer = TypeVar("Answer", bound=Message)
PathLike: TypeAlias = str | os.PathLike[str]

GRPC_OPTIONS = [
    # For a model's facts with labels and golden images; gRPC's own limit is 4 MiB.
    ("grpc.max_receive_message_length", 64 << 20),
    # The gateway limits the size of images.
    ("grpc.max_send_message_length", -1),
    # Reconnect within two seconds of a gateway's return; gRPC itself would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 2000),
]
# Without it all channels of a process to one address are one connection.
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
# The gateway answers DEADLINE_EXCEEDED itself; the client waits this much longer for it.
HTTP_GRACE_S = 1.0


class Transport(Protocol):
    def classify(self, request: pb.ClassifyRequest, timeout_s: float) -> pb.ClassifyResponse: ...

    def classify_batch(
        self, requests: Sequence[pb.ClassifyRequest], timeout_s: float
    ) -> pb.BatchClassifyResponse: ...

    def list_models(self, timeout_s: float) -> pb.ListModelsResponse: ...

    def get_model(self, request: pb.GetModelRequest, timeout_s: float) -> pb.Model: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Tls:
    """PEM files: the trusted authorities (None: the built-in ones), the client's certificate."""

    ca: PathLike | None = None
    certificate: PathLike | None = None
    key: PathLike | None = None

    def for_grpc(self) -> grpc.ChannelCredentials:
        ca, certificate, key = self._read()
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def for_http(self) -> ssl.SSLContext:
        self._read()  # ssl would not name a missing file
        ca = self.ca
        try:
            context = ssl.create_default_context(cafile=ca) if ca else httpx.create_ssl_context()
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            raise errors.InvalidRequest(
                f"not PEM files of a certificate, its key or authorities: {error}"
            ) from error
        return context

    def _read(self) -> list[bytes | None]:
        if bool(self.certificate) != bool(self.key):
            raise errors.InvalidRequest(
                "a certificate needs its key, and a key its certificate: give both"
            )
        paths = (self.ca, self.certificate, self.key)
        try:
            return [Path(path).read_bytes() if path else None for path in paths]
        except OSError as error:
            raise errors.InvalidRequest(f"{error.filename}: {error.strerror}") from error


class GrpcTransport:
    """Its channels take turns, each a connection of its own."""

    def __init__(self, server: str, tls: Tls | None, api_key: str, channels: int) -> None:
        target = server.removeprefix("grpcs://")
        credentials = tls.for_grpc() if tls else None
        options = GRPC_OPTIONS if channels == 1 else [*GRPC_OPTIONS, OWN_CONNECTION]
        self._channels = [open_channel(target, credentials, options) for _ in range(channels)]
        stubs = [
            classifier_pb2_grpc.ImageClassifierStub(channel)  # type: ignore[no-untyped-call]
            for channel in self._channels
        ]
        self._stubs = itertools.cycle(stubs)  # whose next() no other thread can interrupt
        self._metadata = tuple(authorization(api_key).items())

    def classify(self, request: pb.ClassifyRequest, timeout_s: float) -> pb.ClassifyResponse:
        answer: pb.ClassifyResponse = self._call("Classify", request, timeout_s)
        return answer

    def classify_batch(
        self, requests: Sequence[pb.ClassifyRequest], timeout_s: float
    ) -> pb.BatchClassifyResponse:
        batch = pb.BatchClassifyRequest(requests=requests)
        answer: pb.BatchClassifyResponse = self._call("BatchClassify", batch, timeout_s)
        return answer

    def list_models(self, timeout_s: float) -> pb.ListModelsResponse:
        answer: pb.ListModelsResponse = self._call("ListModels", pb.ListModelsRequest(), timeout_s)
        return answer

    def get_model(self, request: pb.GetModelRequest, timeout_s: float) -> pb.Model:
        answer: pb.Model = self._call("GetModel", request, timeout_s)
        return answer

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def _call(self, method: str, request: Message, timeout_s: float) -> Any:
        try:
            call = getattr(next(self._stubs), method)
            return call(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, int]]
) -> grpc.Channel:
    if credentials:
        return grpc.secure_channel(target, credentials, options=options)
    return grpc.insecure_channel(target, options=options)


def authorization(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def from_rpc_error(error: grpc.RpcError) -> errors.ConvoyError:
    assert isinstance(error, grpc.Call)  # a stub's exceptions are both
    status = rpc_status.from_call(error)
    reason, retry_after_s = parse_details(status) if status else ("", None)
    return errors.from_code(error.code().name, error.details() or "", reason, retry_after_s)


def from_status(status: status_pb2.Status) -> errors.ConvoyError:
    """The error of one request of a batch."""
    return errors.from_code(CODE_NAMES[status.code], status.message, *parse_details(status))


def parse_details(status: status_pb2.Status) -> tuple[str, float | None]:
    """The gateway's reason, and the seconds after which a retry may succeed."""
    reason, retry_after_s = "", None
    for detail in status.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, retry_after_s


class HttpTransport:
    def __init__(self, base_url: str, tls: Tls | None, api_key: str) -> None:
        self._http = httpx.Client(
            base_url=base_url,
            # Without TLS nobody need be trusted; True would read all authorities: 20 ms.
            verify=tls.for_http() if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            headers=authorization(api_key),
        )

    def classify(self, request: pb.ClassifyRequest, timeout_s: float) -> pb.ClassifyResponse:
        fields = json_format.MessageToDict(request, preserving_proto_field_name=True)
        options = {
            name: ",".join(value) if isinstance(value, list) else value
            for name, value in fields.items()
            if name not in ("model", "image")
        }
        return self._send(
            pb.ClassifyResponse(),
            "POST",
            f"/v1/models/{quote(request.model, safe='')}:classify",
            timeout_s,
            params=options,
            content=request.image.content,
            headers={
                "content-type": "application/octet-stream",
                "x-request-timeout-ms": str(timeout_s * 1e3),
            },
        )

    def classify_batch(
        self, requests: Sequence[pb.ClassifyRequest], timeout_s: float
    ) -> pb.BatchClassifyResponse:
        batch = pb.BatchClassifyRequest(requests=requests)
        return self._send(
            pb.BatchClassifyResponse(),
            "POST",
            f"/v1/models/{quote(requests[0].model, safe='')}:batchClassify",
            timeout_s,
            json=json_format.MessageToDict(batch, preserving_proto_field_name=True),
            headers={"x-request-timeout-ms": str(timeout_s * 1e3)},
        )

    def list_models(self, timeout_s: float) -> pb.ListModelsResponse:
        return self._send(pb.ListModelsResponse(), "GET", "/v1/models", timeout_s)

    def get_model(self, request: pb.GetModelRequest, timeout_s: float) -> pb.Model:
        path = f"/v1/models/{quote(request.model, safe='')}"
        return self._send(pb.Model(), "GET", path, timeout_s, params={"version": request.version})

    def close(self) -> None:
        self._http.close()

    def _send(
        self, answer: Answer, method: str, path: str, timeout_s: float, **options: Any
    ) -> Answer:
        try:
            response = self._http.request(method, path, timeout=timeout_s + HTTP_GRACE_S, **options)
        except httpx.TimeoutException as error:
            raise errors.DeadlineExceeded(f"no answer within {timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise errors.Unavailable(f"{self._http.base_url}: {error}") from error
        if not response.is_success:
            raise from_problem(response)
        return json_format.Parse(response.content, answer, ignore_unknown_fields=True)


def from_problem(response: httpx.Response) -> errors.ConvoyError:
    """The error in an RFC 9457 document; for any other answer, an error after its status."""
    retry_after = response.headers.get("retry-after", "")
    retry_after_s = float(retry_after) if retry_after.isdecimal() else None
    try:
        problem = response.json()
        return errors.from_code(
            problem["code"], problem["detail"], problem["reason"], retry_after_s
        )
    except (ValueError, KeyError, TypeError):
        code = "UNAVAILABLE" if response.status_code in (502, 503, 504) else "UNKNOWN"
        message = f"{response.url} answered HTTP {response.status_code}, not as Convoy does"
        return errors.from_code(code, message, "", retry_after_s)
