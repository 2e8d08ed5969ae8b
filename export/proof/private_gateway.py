"""A private gateway: a process of its own on unix sockets that serves one staged folder."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from convoy import Client
from convoy.errors import NotFound, Unavailable
from convoy.v1 import classifier_pb2 as pb
from export.errors import ParityError, ServedError
from export.files import ROOT

START_TIMEOUT_S, ANSWER_TIMEOUT_S = 180.0, 120.0
POLL_INTERVAL_S = 0.05
MAX_LOG_LINES = 3


@contextlib.contextmanager
def private_gateway(
    folder: Path, *, triton: str | None = None, root: Path = ROOT
) -> Iterator[Client]:
    """Serves the version in `folder`, NAME.vN.staging, to this process only.

    The gateway runs the model in its own process, unless `triton` is the HOST:PORT of a Triton that
    serves the folder's repository. `root` is the checkout whose gateway is started.

    Raises:
        ServedError: the gateway did not start.
        ParityError: the version did not prove itself there.
    """
    with tempfile.TemporaryDirectory(prefix="convoy-") as sockets_folder:  # paths must be short
        log_path = Path(sockets_folder, "log")
        sockets = {api: f"unix:{sockets_folder}/{api}" for api in ("http", "grpc", "metrics")}
        with (
            _process(folder, triton, sockets, log_path, root) as process,
            Client(sockets["grpc"], timeout_s=ANSWER_TIMEOUT_S) as client,
        ):
            _wait_until_proven(client, folder.name, process, log_path)
            yield client


@contextlib.contextmanager
def _process(
    folder: Path, triton: str | None, sockets: dict[str, str], log_path: Path, root: Path
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "convoy.cli", "serve", f"--staged={folder.name}"]
    command += [f"--triton={triton}"] if triton else [f"--repository={folder.parent}"]
    command += [f"--{api}-address={address}" for api, address in sockets.items()]
    # The user's settings are meant for the user's own gateway.
    environment = {key: value for key, value in os.environ.items() if key[:7] != "CONVOY_"}
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--log-level=warning", "--log-format=text"],
            cwd=root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait_until_proven(
    client: Client, folder: str, process: subprocess.Popen[bytes], log_path: Path
) -> None:
    name, deadline_s = folder.partition(".")[0], time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(Unavailable, NotFound):
            model = client.model(name)
            if model.state == pb.STATE_READY:
                return
            if model.state == pb.STATE_FAILED:
                raise ParityError(
                    f"{folder} does not prove itself behind the gateway: {model.state_reason}"
                )
        time.sleep(POLL_INTERVAL_S)
    last_lines = log_path.read_text(errors="replace").splitlines()[-MAX_LOG_LINES:]
    raise ServedError(
        f"The private gateway did not serve {folder} within {START_TIMEOUT_S:.0f} s: "
        + (" / ".join(last_lines) or "its log is empty.")
    )
