"""One client for both transports.

from convoy import Client

# gRPC; "http://localhost:8080" for HTTP, "grpcs://…" and "https://…" for the same over TLS
with Client("localhost:8081") as client:
    answer = client.classify("photo.jpg", model="resnet152")
    print(answer.best.label, answer.best.score)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from convoy.errors import BadImage, ConvoyError, InvalidRequest
from convoy.evidence import (
    Heatmap,
    SeenImage,
    Unfamiliar,
    to_features,
    to_heatmap,
    to_layers,
    to_seen_image,
    to_unfamiliar,
)
from convoy.v1 import classifier_pb2 as pb

# At run time they are imported where they are used: gRPC reads its environment when it is imported,
# and `convoy serve` sets it before.
if TYPE_CHECKING:
    from convoy.evidence import Bytes, Floats
    from convoy.transports import PathLike, Transport

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
    """The best classes of one image, and what answered."""

    classes: tuple[Class, ...]  # best first
    model: str
    version: str
    runtime: str
    precision: str  # "fp32", "fp16" or "int8"
    device: str  # "cpu" or "gpu"
    weights: str  # "random": the answer is meaningless
    manifest_digest: str
    batch_size: int  # images that went through the network together
    total_ms: float  # in the gateway
    request_id: str
    # What `include` asked for.
    input: SeenImage | None = field(default=None, compare=False)
    heatmap: Heatmap | None = field(default=None, compare=False)
    features: Floats | None = field(default=None, compare=False)
    layers: dict[str, Bytes] | None = field(default=None, compare=False)
    unfamiliar: Unfamiliar | None = None  # if the model measures it

    @property
    def best(self) -> Class:
        """
        Raises:
            IndexError: every class scored below the requested min_score, or below its threshold.
        """
        return self.classes[0]


class Client:
    """A connection to a gateway, for use from any thread; close it at the end.

    ca: PEM file of the authorities to trust; default: CONVOY_CA, then the built-in ones.
    certificate, key: PEM files, if the gateway requires a client certificate (mutual TLS).
    api_key: default: CONVOY_API_KEY, then none.
    channels: connections of gRPC, which take turns: a gateway of several workers gives each to one
        of them. Over HTTP, concurrent requests have connections of their own anyway.

    Every method raises ConvoyErrors (`convoy.errors`), the same over both transports.

    Raises:
        InvalidRequest: a file cannot be read, or is given without TLS; there is no channel.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        api_key: str | None = None,
        ca: PathLike | None = None,
        certificate: PathLike | None = None,
        key: PathLike | None = None,
        channels: int = 1,
    ) -> None:
        from convoy.transports import GrpcTransport, HttpTransport, Tls

        is_http = server.startswith(("http://", "https://"))
        is_tls = server.startswith(("https://", "grpcs://"))
        if (ca or certificate or key) and not is_tls:
            raise InvalidRequest(
                f"{server} does not use TLS: start the address with https:// or grpcs://"
            )
        tls = Tls(ca or os.environ.get("CONVOY_CA"), certificate, key) if is_tls else None
        secret = os.environ.get("CONVOY_API_KEY", "") if api_key is None else api_key
        if channels < 1:
            raise InvalidRequest(f"channels must be at least 1, got {channels}")
        self._transport: Transport = (
            HttpTransport(server, tls, secret)
            if is_http
            else GrpcTransport(server, tls, secret, channels)
        )
        self._timeout_s = timeout_s

    def classify(
        self,
        image: bytes | PathLike,
        *,
        model: str,
        version: str = "",
        top_k: int | None = None,
        min_score: float | None = None,
        request_id: str = "",
        include: Sequence[str] = (),
    ) -> Classification:
        """Labels and scores of an encoded image, given as its bytes or as the path of its file.

        include: of INPUT, HEATMAP, FEATURES and LAYERS; `Model.evidence` says what a model has.
        """
        request = to_request(
            image,
            model=model,
            version=version,
            top_k=top_k,
            min_score=min_score,
            request_id=request_id,
            include=include,
        )
        return to_classification(self._transport.classify(request, self._timeout_s))

    def classify_batch(
        self,
        images: Iterable[bytes | PathLike],
        *,
        model: str,
        version: str = "",
        top_k: int | None = None,
        min_score: float | None = None,
        include: Sequence[str] = (),
    ) -> list[Classification | ConvoyError]:
        """Classifies images in one call: for each, in order, its classification or its error.

        Raises:
            ConvoyError: the whole batch failed: it has too many images, for instance, or the
                gateway cannot be reached.
        """
        from convoy.transports import from_status

        options = {
            "version": version,
            "top_k": top_k,
            "min_score": min_score,
            "include": include,
        }
        requests = [to_request(image, model=model, **options) for image in images]
        if not requests:
            return []
        results = self._transport.classify_batch(requests, self._timeout_s).results
        return [
            to_classification(result.response)
            if result.WhichOneof("result") == "response"
            else from_status(result.error)
            for result in results
        ]

    def models(self) -> list[pb.Model]:
        """All versions on the gateway, without labels, golden images and parity reports."""
        return list(self._transport.list_models(self._timeout_s).models)

    def model(self, name: str, version: str = "") -> pb.Model:
        """All facts about one version, by default the model's default version."""
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


def to_request(image: bytes | PathLike, **fields: Any) -> pb.ClassifyRequest:
    """
    Raises:
        BadImage: the file cannot be read.
        InvalidRequest: `include` has an unknown name.
    """
    content = image if isinstance(image, bytes) else read_image(Path(image))
    try:
        return pb.ClassifyRequest(image=pb.Image(content=content), **fields)
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def read_image(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadImage(f"{path} cannot be read: {error.strerror}") from error


def to_classification(response: pb.ClassifyResponse) -> Classification:
    return Classification(
        classes=tuple(
            Class(entry.label, entry.score, entry.index, entry.id) for entry in response.classes
        ),
        model=response.model,
        version=response.version,
        runtime=response.served.runtime,
        precision=response.served.precision,
        device=response.served.device,
        weights=response.served.weights,
        manifest_digest=response.served.manifest_digest,
        batch_size=response.served.batch_size,
        total_ms=response.timing.total_us / 1e3,
        request_id=response.request_id,
        input=to_seen_image(response.input) if response.HasField("input") else None,
        heatmap=to_heatmap(response.heatmap) if response.HasField("heatmap") else None,
        features=to_features(response.features) if response.HasField("features") else None,
        layers=to_layers(response.layers) if response.HasField("layers") else None,
        unfamiliar=to_unfamiliar(response.unfamiliar) if response.HasField("unfamiliar") else None,
    )
