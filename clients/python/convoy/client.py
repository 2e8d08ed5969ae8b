"""One facade over both wires.

from convoy import Client

with Client("localhost:8081") as client:              # gRPC; "http://localhost:8080" for HTTP
    answer = client.classify("photo.jpg", model="resnet152")
    print(answer.best.label, answer.best.score)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from convoy.errors import BadImage
from convoy.transports import GrpcTransport, HttpTransport, Transport
from convoy.v1 import classifier_pb2 as pb

DEFAULT_SERVER = "localhost:8081"
DEFAULT_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Class:
    label: str
    score: float  # probability, 0 to 1
    index: int  # row of the model's output
    id: str  # in the labels' data set, such as an ImageNet synset; may be empty


@dataclass(frozen=True)
class Classification:
    """The best classes of one image, and where they come from."""

    classes: tuple[Class, ...]  # best first
    model: str
    version: str
    runtime: str
    precision: str  # "fp32", "fp16" or "int8"
    weights: str  # "random" means that the answer means nothing
    manifest_digest: str
    batch_size: int  # images that went through the network together
    total_ms: float  # in the gateway
    request_id: str

    @property
    def best(self) -> Class:
        """
        Raises:
            IndexError: every class scored below the min_score that was asked for.
        """
        return self.classes[0]


class Client:
    """A connection to a gateway; usable from several threads, to be closed at the end.

    Every method raises a ConvoyError (`convoy.errors`), the same over both wires.
    """

    def __init__(
        self, server: str = DEFAULT_SERVER, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        is_http = server.startswith(("http://", "https://"))
        self._transport: Transport = HttpTransport(server) if is_http else GrpcTransport(server)
        self._timeout_s = timeout_s

    def classify(
        self,
        image: bytes | str | os.PathLike[str],
        *,
        model: str,
        version: str = "",
        top_k: int | None = None,
        min_score: float | None = None,
        request_id: str = "",
    ) -> Classification:
        """Labels and scores of an encoded image, given as its bytes or as the path of its file."""
        content = image if isinstance(image, bytes) else read_image(Path(image))
        request = pb.ClassifyRequest(
            model=model,
            version=version,
            image=pb.Image(content=content),
            top_k=top_k,
            min_score=min_score,
            request_id=request_id,
        )
        return to_classification(self._transport.classify(request, self._timeout_s))

    def models(self) -> list[pb.Model]:
        """Every version that the gateway knows, without labels, golden images and reports."""
        return list(self._transport.list_models(self._timeout_s).models)

    def model(self, name: str, version: str = "") -> pb.Model:
        """Everything known of one version; the default one unless told."""
        request = pb.GetModelRequest(model=name, version=version)
        return self._transport.get_model(request, self._timeout_s)

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_image(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadImage(f"{path} cannot be read: {error.strerror}") from error


def to_classification(response: pb.ClassifyResponse) -> Classification:
    return Classification(
        classes=tuple(
            Class(found.label, found.score, found.index, found.id) for found in response.classes
        ),
        model=response.model,
        version=response.version,
        runtime=response.served.runtime,
        precision=response.served.precision,
        weights=response.served.weights,
        manifest_digest=response.served.manifest_digest,
        batch_size=response.served.batch_size,
        total_ms=response.timing.total_us / 1e3,
        request_id=response.request_id,
    )
