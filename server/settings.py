"""What an operator can set: flags over environment variables (CONVOY_…) over the defaults here.

No other module reads CONVOY_… variables, and no flag is typed twice: `convoy serve --help` is made
from these fields.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.runners.base import FOLDER_NAME
from server.runners.staged import SUFFIX
from server.runners.tritonserver_wheel import default_cache_path

CHECKOUT = Path(__file__).resolve().parents[1]


def default_repository_path() -> Path:
    """The checkout's repository where there is a checkout, else one in the working directory."""
    path = CHECKOUT / "model_repository"
    return path if path.is_dir() else Path("model_repository")


def host_and_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8080; port 0 takes a free one")
    return address


def host_and_port_or_socket(address: str) -> str:
    is_socket = address.startswith("unix:/")
    return address if is_socket else host_and_port(address)


def staging_folder(name: str) -> str:
    if not name.endswith(SUFFIX) or not FOLDER_NAME.fullmatch(name.removesuffix(SUFFIX)):
        raise ValueError("must be NAME.vN.staging, a folder of the repository")
    return name


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

    runner: Literal["in-process", "triton-local"] = Field(
        "in-process",
        description="What runs the models: ONNX Runtime in this process, or a Triton server that "
        "the gateway installs (144 MB, once), starts and watches.",
    )
    triton: Address | None = Field(
        None,
        description="HOST:PORT (gRPC) of a Triton that is there already; takes the runner's place.",
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
        description="The same of the operator's door, which has /metrics and the probes.",
    )
    max_image_bytes: PositiveInt = Field(
        16 << 20, description="Largest encoded image. More costs as much memory for each request."
    )
    max_request_bytes: PositiveInt = Field(
        32 << 20, description="Largest request, on either wire; base64 adds a third to an image."
    )
    max_image_pixels: PositiveInt = Field(
        50_000_000, description="Largest width x height. A decoded pixel takes 3 bytes of memory."
    )
    max_in_flight: PositiveInt = Field(
        256,
        description="Requests held at once; more are refused with OVERLOADED. A longer queue does "
        "not answer more, it answers later.",
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
    shutdown_grace_s: PositiveFloat = Field(
        30.0, description="Seconds that requests in flight are given after SIGTERM."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least shown."
    )
