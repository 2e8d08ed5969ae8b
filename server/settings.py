"""What an operator can set: flags over environment variables (CONVOY_…) over a file over defaults.

No other module reads CONVOY_… variables, and no flag is typed twice: `convoy serve --help` is made
from these fields.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.folder_names import FOLDER_NAME, STAGING_SUFFIX

CHECKOUT = Path(__file__).resolve().parents[1]


def default_repository_path() -> Path:
    """The checkout's repository where there is a checkout, else one in the working directory."""
    path = CHECKOUT / "model_repository"
    return path if path.is_dir() else Path("model_repository")


def default_cache_path() -> Path:
    """As the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convoy"


def host_and_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8080; port 0 takes a free one")
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
    return address


def comma_separated(value: object) -> object:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


Address = Annotated[str, AfterValidator(host_and_port)]
DoorAddress = Annotated[str, AfterValidator(host_and_port_or_socket)]


class Settings(BaseSettings):
    """Serve the models of a repository over gRPC and HTTP; here and now, without options."""

    model_config = SettingsConfigDict(
        env_prefix="CONVOY_",
        cli_prog_name="convoy serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        extra="forbid",
    )

    config: Path | None = Field(
        None,
        description="A TOML file with settings, named as here with underscores. A flag or a "
        "variable CONVOY_NAME wins over it.",
    )
    show_config: bool = Field(
        False,
        description="Print every setting and where its value comes from, as a TOML file, and end.",
    )
    runner: Literal["in-process", "triton-local"] = Field(
        "in-process",
        description="What runs the models: ONNX Runtime in this process, or a Triton server that "
        "the gateway installs (144 MB, once), starts and watches.",
    )
    triton: Annotated[list[Address], NoDecode, BeforeValidator(comma_separated)] = Field(
        [],
        description="HOST:PORT (gRPC) of Tritons that are there already, separated by commas; they "
        "take the runner's place. A name that stands for several addresses is several Tritons, "
        "and is looked up each second.",
    )
    repository: Path = Field(
        default_factory=default_repository_path,
        description="The model repository. A Triton at --triton has its own.",
    )
    cache: Path = Field(
        default_factory=default_cache_path,
        description="Where the Triton server of --runner triton-local is kept once installed.",
    )
    models: Annotated[list[str], NoDecode, BeforeValidator(comma_separated)] = Field(
        [],
        description="Serve only these, separated by commas; the gateway is ready when each is. "
        "Unset: all that the repository holds.",
    )
    staged: Annotated[str, AfterValidator(staging_folder)] | None = Field(
        None,
        description="Serve this NAME.vN.staging and nothing else: how a build asks for the served "
        "answer before it publishes.",
    )
    http_address: DoorAddress = Field(
        "127.0.0.1:8080", description="HOST:PORT of the HTTP door, or unix:/PATH of a socket."
    )
    grpc_address: DoorAddress = Field("127.0.0.1:8081", description="The same of the gRPC door.")
    metrics_address: DoorAddress = Field(
        "127.0.0.1:8082",
        description="The same of the operator's door, which has /metrics, /statusz and the probes.",
    )
    tls_certificate: Path | None = Field(
        None,
        description="PEM file of the certificate, and those between it and its root, that both "
        "doors for clients show. It is read anew on SIGHUP, as are the key, the client CA and "
        "the API keys.",
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of the authorities that sign clients' certificates: with it, only "
        "clients with such a certificate are let in (mutual TLS).",
    )
    api_keys: Path | None = Field(
        None,
        description="File of the API keys, hashed, as `convoy key` writes it. With it, "
        "each request needs one, as `authorization: Bearer KEY`.",
    )
    allow_unauthenticated: bool = Field(
        False,
        description="Let anybody ask who reaches an address that is not this machine's alone. "
        "Needed there if neither --api-keys nor --tls-client-ca is given.",
    )
    max_image_bytes: PositiveInt = Field(
        16 << 20, description="Largest encoded image. More costs as much memory for each request."
    )
    max_request_bytes: PositiveInt = Field(
        32 << 20, description="Largest request, on either wire; base64 adds a third to an image."
    )
    max_image_pixels: PositiveInt = Field(
        50_000_000,
        description="Largest width x height. A pixel takes 4 to 16 bytes while it is decoded.",
    )
    max_in_flight: PositiveInt = Field(
        256,
        description="Images held at once; more are refused with OVERLOADED. A longer queue does "
        "not answer more, it answers later.",
    )
    max_in_flight_bytes: PositiveInt = Field(
        256 << 20, description="The same for the bytes of the requests that are held."
    )
    max_batch_requests: PositiveInt = Field(
        64, description="Most requests in one batch call; all are held until the last is answered."
    )
    max_connections: PositiveInt = Field(
        1000, description="Connections to each door at once; more are closed. One costs a file."
    )
    max_concurrent_streams: PositiveInt = Field(
        100, description="Calls at once over one gRPC connection; the client waits with more."
    )
    max_header_bytes: PositiveInt = Field(
        16 << 10, description="Largest headers of a request, or metadata of a call."
    )
    header_timeout_s: PositiveFloat = Field(
        10.0, description="Seconds that a client may take to send the headers of a request."
    )
    body_timeout_s: PositiveFloat = Field(
        20.0, description="Seconds between two pieces of a body before the client is given up."
    )
    min_body_bytes_per_s: PositiveInt = Field(
        8 << 10,
        description="A body that comes slower than this, on the whole, is given up.",
    )
    decode_threads: PositiveInt = Field(
        os.cpu_count() or 1, description="Threads that decode and resize images."
    )
    keep_loaded: PositiveInt = Field(
        1,
        description="Versions of a model that stay loaded and proven, the default one included. "
        "Each costs its memory, and is asked by its number, or answers at once after a roll-back.",
    )
    unload_grace_s: PositiveFloat = Field(
        5.0, description="Seconds that a version stays loaded after a newer one has taken over."
    )
    not_ready_s: NonNegativeFloat = Field(
        0.0,
        description="Seconds after SIGTERM in which the gateway still takes requests while its "
        "probes say that it is not ready: as long as a load balancer takes to look.",
    )
    shutdown_grace_s: PositiveFloat = Field(
        30.0, description="Seconds that requests in flight are given after SIGTERM."
    )
    otlp_endpoint: Annotated[str, AfterValidator(web_address)] | None = Field(
        None,
        description="Where traces go, over OTLP and HTTP, such as http://127.0.0.1:4318. Unset: "
        "nowhere. Its headers and certificates: the variables OTEL_EXPORTER_OTLP_….",
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least shown."
    )
