"""How many workers serve, and what each of them may use."""

from __future__ import annotations

import logging
import sys
from typing import Any

from server.cpus import available_cpus
from server.folder_names import FOLDER_NAME
from server.network.addresses import is_socket
from server.settings import Settings

logger = logging.getLogger(__name__)

CPUS_PER_WORKER = 2
MIN_CPUS = 4
# Each worker loads the networks that run in process for itself.
MAX_NETWORK_BYTES = 50_000_000


def count_workers(settings: Settings) -> int:
    """As --workers says, where several are possible; the log says why they are not."""
    wanted = choose_automatically(settings) if settings.workers == "auto" else settings.workers
    if wanted > 1 and (reason := why_only_one(settings)):
        logger.warning("one worker serves in place of %d: %s", wanted, reason)
        return 1
    return wanted


def why_only_one(settings: Settings) -> str:
    """Empty: several are possible."""
    if sys.platform != "linux":
        return "only Linux shares a port evenly among processes"
    if is_socket(settings.http_address) or is_socket(settings.grpc_address):
        return "a unix socket cannot be shared"
    if settings.runner == "triton-local" and not settings.triton:
        return "--runner triton-local has one; start Triton yourself, and name it by --triton"
    return ""


def choose_automatically(settings: Settings) -> int:
    cpus = available_cpus()
    if cpus < MIN_CPUS or (not settings.triton and has_large_network(settings)):
        return 1
    return cpus // CPUS_PER_WORKER


def has_large_network(settings: Settings) -> bool:
    """Whether the files of a version to be served, its external data included, are above 50 MB."""
    wanted = set(settings.models)
    return any(
        sum(file.stat().st_size for file in folder.glob("*") if file.is_file()) > MAX_NETWORK_BYTES
        for folder in settings.repository.glob("*/1")
        if (name := FOLDER_NAME.fullmatch(folder.parent.name))
        and (not wanted or name["model"] in wanted)
    )


def settings_of_worker(settings: Settings, workers: int, addresses: dict[str, Any]) -> Settings:
    """With its part of the threads, and addresses that may differ from those of the whole."""
    return settings.model_copy(
        update={
            "decode_threads": max(1, settings.decode_threads // workers),
            "inference_threads": max(1, settings.inference_threads // workers),
            **addresses,
        }
    )
