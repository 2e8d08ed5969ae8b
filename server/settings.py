"""What an operator can set: flags over environment variables (CONVOY_…) over a file over defaults.

No other module of the server reads CONVOY_… variables. The flags of `convoy serve` and their help
are made from these fields.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PlainSerializer,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.cpus import available_cpus
from server.folder_names import FOLDER_NAME, STAGING_SUFFIX

CHECKOUT = Path(__file__).resolve().parents[1]


def default_repository_path() -> Path:
    """The repository of the checkout; without a checkout, one in the working directory."""
    path = CHECKOUT / "model_repository"
    return path if path.is_dir() else Path("model_repository")


def default_cache_path() -> Path:
    """Follows the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convoy"


def host_and_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8080; port 0 picks a free one")
    return address


def host_and_port_or_socket(address: str) -> str:
    is_socket = address.startswith("unix:/")
    return address if is_socket else host_and_port(address)


def staging_folder(name: str) -> str:
    version = name.removesuffix(STAGING_SUFFIX)
    if version == name or not FOLDER_NAME.fullmatch(version):
        raise ValueError("must be NAME.vN.staging, a folder of the repository")
    return name


def web_address(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    try:
        has_host = urlsplit(address).port != 0 and bool(urlsplit(address).hostname)
    except ValueError:
        has_host = False
    if not has_host:
        raise ValueError("must be a URL, with / ? # @ of a password as %2F %3F %23 %40")
    return address


def count_or_auto(value: object) -> object:
    if value == "auto":
        return value
    if not str(value).isdecimal() or not int(str(value)):
        raise ValueError("must be a number from 1 on, or auto")
    return int(str(value))


def mask_password(text: str) -> str:
    """Hides the user and the password of a URL, valid or not: all from // to the last @."""
    return re.sub(r"(?<=://).*(?=@)", "***", text, flags=re.DOTALL)


def comma_separated(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [name.strip() for name in value.split(",") if name.strip()]


@dataclass(frozen=True)
class Shown:
    """How `--help` shows a setting."""

    metavar: str = ""  # empty: that of the type
    default: str = ""  # of a default that depends on the machine
    is_hidden: bool = False  # hardly anybody needs it


FILE, DIRECTORY, BYTES, COUNT, SECONDS = (
    Shown(metavar) for metavar in ("FILE", "DIR", "BYTES", "N", "SECONDS")
)
RARE_BYTES, RARE_COUNT, RARE_SECONDS = (
    Shown(metavar, is_hidden=True) for metavar in ("BYTES", "N", "SECONDS")
)
ListenAddress = Annotated[str, AfterValidator(host_and_port_or_socket), Shown("ADDRESS")]
Addresses = Annotated[
    list[Annotated[str, AfterValidator(host_and_port)]],
    NoDecode,
    BeforeValidator(comma_separated),
    Shown("HOST:PORT,…"),
]
Names = Annotated[list[str], NoDecode, BeforeValidator(comma_separated), Shown("NAME,…")]
StagedName = Annotated[
    Annotated[str, AfterValidator(staging_folder)] | None,
    Shown("NAME.vN.staging", is_hidden=True),
]
CountOrAuto = Annotated[int | Literal["auto"], PlainValidator(count_or_auto), Shown("N|auto")]
WebAddress = Annotated[
    Annotated[str, AfterValidator(web_address), PlainSerializer(mask_password)] | None, Shown("URL")
]


class Settings(BaseSettings):
    """Every setting of the gateway, with its default."""

    model_config = SettingsConfigDict(env_prefix="CONVOY_", extra="forbid")

    config: Annotated[Path | None, FILE] = Field(
        None,
        description="A TOML file with settings, named as here, with underscores. Flags and "
        "variables CONVOY_NAME take precedence over it.",
    )
    show_config: bool = Field(
        False,
        description="Print every setting and where its value comes from, as a TOML file, and exit.",
    )
    runner: Literal["in-process", "triton-local"] = Field(
        "in-process",
        description="What runs the models: ONNX Runtime in this process, or a Triton server that "
        "the gateway installs (144 MB, once), starts and watches.",
    )
    triton: Addresses = Field(
        [],
        description="gRPC addresses of running Triton servers, separated by commas; they are used "
        "in place of --runner. A name with several addresses stands for several Tritons, and is "
        "looked up every second.",
    )
    repository: Annotated[Path, Shown("DIR", default="model_repository")] = Field(
        default_factory=default_repository_path,
        description="The model repository. A Triton given by --triton has its own.",
    )
    cache: Annotated[Path, Shown("DIR", default="~/.cache/convoy")] = Field(
        default_factory=default_cache_path,
        description="Where --runner triton-local keeps the Triton server once it is installed.",
    )
    workers: CountOrAuto = Field(
        1,
        description="Processes that serve on the same ports, on Linux. They share all limits, the "
        "rates of keys and the threads. auto: one per two CPUs; 1 below 4 CPUs, and for networks "
        "above 50 MB in process.",
    )
    worker_timeout_s: Annotated[PositiveFloat, RARE_SECONDS] = Field(
        30.0, description="A worker whose event loop stands still for so long is replaced."
    )
    models: Names = Field(
        [],
        description="Serve only these models, separated by commas; the gateway is ready when each "
        "of them is. Unset: all models in the repository.",
    )
    staged: StagedName = Field(
        None,
        description="Serve only this folder, NAME.vN.staging: builds use it to ask for the served "
        "answer before they publish.",
    )
    http_address: ListenAddress = Field(
        "127.0.0.1:8080",
        description="Where the HTTP API listens: HOST:PORT, or unix:/PATH of a socket.",
    )
    grpc_address: ListenAddress = Field("127.0.0.1:8081", description="Where the gRPC API listens.")
    metrics_address: ListenAddress = Field(
        "127.0.0.1:8082",
        description="Where the admin port listens, with /metrics, /statusz and the probes.",
    )
    tls_certificate: Annotated[Path | None, FILE] = Field(
        None,
        description="PEM file of the server certificate and its intermediates, for both APIs. "
        "SIGHUP reloads it, as well as the key, the client CA and the API keys.",
    )
    tls_key: Annotated[Path | None, FILE] = Field(
        None, description="PEM file of the certificate's private key."
    )
    tls_client_ca: Annotated[Path | None, FILE] = Field(
        None,
        description="PEM file of the authorities that sign client certificates: only clients with "
        "such a certificate are accepted (mutual TLS).",
    )
    api_keys: Annotated[Path | None, FILE] = Field(
        None,
        description="File of hashed API keys, as written by `convoy key`. Each request then needs "
        "a key, as `authorization: Bearer KEY`.",
    )
    allow_unauthenticated: bool = Field(
        False,
        description="Accept unauthenticated requests on addresses that other machines can reach. "
        "Needed there unless --api-keys or --tls-client-ca is given.",
    )
    allowed_hosts: Names = Field(
        [],
        description="Names of this gateway besides addresses and names without a domain, separated "
        "by commas; `*`: any. Others are refused, against DNS rebinding. Unset: any on 0.0.0.0.",
    )
    cors_origins: Names = Field(
        [],
        description="Origins whose pages may use the HTTP API from a browser, separated by commas, "
        "such as https://app.example.org. Unset: none.",
    )
    page: bool = Field(True, description="The page for people at /; --no-page takes it away.")
    max_image_bytes: Annotated[PositiveInt, BYTES] = Field(
        16 << 20, description="Largest encoded image. Each request may take that much memory."
    )
    max_request_bytes: Annotated[PositiveInt, BYTES] = Field(
        32 << 20,
        description="Largest request of either API; base64 makes an image a third larger.",
    )
    max_image_pixels: Annotated[PositiveInt, COUNT] = Field(
        50_000_000,
        description="Largest width x height. A pixel takes 4 to 16 bytes while it is decoded.",
    )
    exact_decode: bool = Field(
        False,
        description="Decode each pixel of large JPEG photos. Unset, those of at least four times "
        "the size that the network sees are decoded at half of theirs or less.",
    )
    max_in_flight: Annotated[PositiveInt, COUNT] = Field(
        256,
        description="Maximum number of images in flight; further ones are refused with OVERLOADED. "
        "A longer queue does not answer more requests, it answers them later.",
    )
    max_in_flight_bytes: Annotated[PositiveInt, BYTES] = Field(
        256 << 20, description="Maximum size of all requests in flight together."
    )
    max_batch_requests: Annotated[PositiveInt, COUNT] = Field(
        64,
        description="Maximum number of requests in a batch call; all are held until the last is "
        "answered.",
    )
    max_connections: Annotated[PositiveInt, COUNT] = Field(
        1000,
        description="Maximum concurrent connections per port; further ones are closed. Each uses "
        "one file descriptor.",
    )
    max_concurrent_streams: Annotated[PositiveInt, RARE_COUNT] = Field(
        100, description="Maximum concurrent calls per gRPC connection; the client queues others."
    )
    max_header_bytes: Annotated[PositiveInt, RARE_BYTES] = Field(
        16 << 10, description="Maximum size of a request's headers, or a call's metadata."
    )
    header_timeout_s: Annotated[PositiveFloat, RARE_SECONDS] = Field(
        10.0, description="How long a client may take to send the headers of a request."
    )
    body_timeout_s: Annotated[PositiveFloat, RARE_SECONDS] = Field(
        20.0, description="How long a client may pause while it sends a body."
    )
    min_body_bytes_per_s: Annotated[PositiveInt, RARE_BYTES] = Field(
        8 << 10, description="A body that arrives more slowly than this on average is given up."
    )
    decode_threads: Annotated[PositiveInt, Shown("N", default="one per CPU")] = Field(
        default_factory=available_cpus,
        description="Threads that decode and resize images. CPUs are those that the process may "
        "use, by its affinity and its cgroup's limit.",
    )
    inference_threads: Annotated[PositiveInt, Shown("N", default="one per CPU")] = Field(
        default_factory=available_cpus,
        description="Threads of each model that runs in process, or in the gateway's own Triton, "
        "while it is used. intra_op_thread_count in a version's config.pbtxt takes precedence.",
    )
    keep_loaded: Annotated[PositiveInt, COUNT] = Field(
        1,
        description="How many versions of a model stay loaded and proven, the default one "
        "included. Each takes memory; it answers requests for its number, and takes over at once "
        "after a rollback.",
    )
    load_timeout_s: Annotated[PositiveFloat, SECONDS] = Field(
        120.0,
        description="How long a version may take to load, and again to answer its golden images. "
        "One that takes longer is not served.",
    )
    unload_grace_s: Annotated[PositiveFloat, RARE_SECONDS] = Field(
        5.0, description="How long a version stays loaded after a newer one has taken over."
    )
    not_ready_s: Annotated[NonNegativeFloat, SECONDS] = Field(
        0.0,
        description="How long after SIGTERM the gateway still accepts requests while its probes "
        "report that it is not ready: as long as a load balancer takes to notice.",
    )
    shutdown_grace_s: Annotated[PositiveFloat, SECONDS] = Field(
        30.0, description="How long requests in flight may take after SIGTERM."
    )
    otlp_endpoint: WebAddress = Field(
        None,
        description="Where traces are sent, by OTLP over HTTP, such as http://127.0.0.1:4318. "
        "Unset: nowhere. The variables OTEL_EXPORTER_OTLP_… set headers and certificates.",
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The lowest level that is logged."
    )
