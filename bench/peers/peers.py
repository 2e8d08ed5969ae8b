"""The servers that are compared: how each is set up, started, asked and understood."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.peers.environments import ROOT, install
from bench.peers.http_load import request_bytes
from bench.peers.processes import CORES
from bench.peers.served import Served
from server.runners import tritonserver_wheel
from server.settings import Settings

BOUNDARY = "convoy"
TENSOR_HEADER = "inference-header-content-length"  # of Triton: how long the JSON before tensors is


@dataclass(frozen=True)
class Variant:
    """One way to set up a peer. Its workers share the cores."""

    workers: int = 1
    max_batch: int = 8  # that of the builds
    stages: int = 1

    @property
    def threads(self) -> int:
        return max(1, CORES // self.workers)

    def __str__(self) -> str:
        parts = [f"{self.workers} worker{'s' * (self.workers > 1)}"]
        parts += [f"batches of {self.max_batch}"] if self.max_batch > 1 else []
        parts += [f"{self.stages} stages"] if self.stages > 1 else []
        return ", ".join(parts)


Command = tuple[list[str | Path], dict[str, str]]  # and its environment
ToCommand = Callable[[Served, Variant, int, Path], Command]  # for a port, and a folder of its own


@dataclass(frozen=True)
class Peer:
    name: str
    command: ToCommand
    request: Callable[[Served, bytes], bytes]  # for a file
    label: Callable[[bytes], int]  # of an answer
    variants: Sequence[Variant]
    reads_digits: bool = True  # is worth a comparison there

    def takes_part(self, served: Served, wanted: Sequence[str] | None) -> bool:
        if wanted is not None:
            return self.name == OURS or self.name in wanted
        return self.reads_digits or served.preprocessing.HasField("photo")

    def variants_for(self, served: Served) -> Sequence[Variant]:
        """Digits are computed so fast that waiting for a batch may not pay; photos are not."""
        batched = [variant for variant in self.variants if variant.max_batch > 1]
        return (served.preprocessing.HasField("photo") and batched) or self.variants


def worker_counts() -> list[int]:
    """1, 2, 4, up to the number of cores."""
    return sorted({CORES, *(2**power for power in range(CORES.bit_length()))})


# ---------------------------------------------------------------- how they are started


def convoy(*options: str) -> ToCommand:
    def command(served: Served, variant: Variant, port: int, folder: Path) -> Command:
        addresses = [f"--http-address=127.0.0.1:{port}"]
        addresses += ["--grpc-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0"]
        models = [f"--repository={served.repository}", f"--models={served.model}"]
        workers = [f"--workers={variant.workers}"] if variant.workers > 1 else []
        serve: list[str | Path] = [sys.executable, "-m", "convoy.cli", "serve"]
        return [*serve, *addresses, *models, *workers, *options], {}

    return command


def app(name: str, program: Callable[[int], list[str]] | None = None) -> ToCommand:
    """A program of apps/, in the environment of that name."""

    def command(served: Served, variant: Variant, port: int, folder: Path) -> Command:
        configured = {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "clients" / "python"))),
            "PEER_MODEL": str(served.graph),
            "PEER_PREPROCESSING": served.preprocessing_json,
            "PEER_PORT": str(port),
            "PEER_WORKERS": str(variant.workers),
            "PEER_THREADS": str(variant.threads),
            "PEER_MAX_BATCH": str(variant.max_batch),
            "PEER_STAGES": str(variant.stages),
            "BENTOML_HOME": str(folder),
            "BENTOML_DO_NOT_TRACK": "true",
        }
        arguments = program(port) if program else [f"bench.peers.apps.with_{name}"]
        return [install(name), "-m", *arguments], configured

    return command


def mosec_program(port: int) -> list[str]:
    options = [f"--port={port}", "--address=127.0.0.1", "--log-level=warning", "--timeout=60000"]
    return ["bench.peers.apps.with_mosec", *options]


def bentoml_program(port: int) -> list[str]:
    service = "bench.peers.apps.with_bentoml:Classifier"
    return ["bentoml", "serve", service, f"--port={port}", "--host=127.0.0.1"]


def triton(served: Served, variant: Variant, port: int, folder: Path) -> Command:
    """The tritonserver and the backend of `--runner triton-local`, with its HTTP API."""
    server_path = tritonserver_wheel.install(Settings().cache)
    tritonserver_wheel.lay_out_backends(server_path, folder / "backends")
    command: list[str | Path] = [
        server_path / "bin" / "tritonserver",
        f"--model-repository={served.repository}",
        f"--backend-directory={folder / 'backends'}",
        "--model-control-mode=explicit",
        f"--load-model={served.folder.name}",
        "--disable-auto-complete-config",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
        "--pinned-memory-pool-byte-size=0",
        f"--backend-config=python,shm-region-prefix-name=peers-{port}-",
    ]
    threads = {"CONVOY_INFERENCE_THREADS": str(variant.threads)}
    return command, tritonserver_wheel.environment() | threads


# ---------------------------------------------------------------- how they are asked


def as_it_is(path: str) -> Callable[[Served, bytes], bytes]:
    """The file alone, as the body."""
    return lambda served, content: request_bytes(path.format(model=served.model), content)


def as_base64(served: Served, content: bytes) -> bytes:
    body = json.dumps({"image_data": base64.b64encode(content).decode()}).encode()
    return request_bytes("/predict", body, {"content-type": "application/json"})


def as_form(served: Served, content: bytes) -> bytes:
    head = (
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="images"; filename="image"\r\n\r\n'
    )
    body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return request_bytes("/classify", body, headers)


def as_tensor(served: Served, content: bytes) -> bytes:
    pixels = served.ready(content)
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": [1, *pixels.shape],
        "parameters": {"binary_data_size": pixels.nbytes},
    }
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    path = f"/v2/models/{served.folder.name}/infer"
    return request_bytes(path, head + pixels.tobytes(), {TENSOR_HEADER: str(len(head))})


# ---------------------------------------------------------------- how they are understood


def of_convoy(answer: bytes) -> int:
    index: int = json.loads(body_of(answer))["classes"][0].get("index", 0)
    return index


def of_app(answer: bytes) -> int:
    value = json.loads(body_of(answer))
    index: int = (value[0] if isinstance(value, list) else value)["index"]
    return index


def of_tensors(answer: bytes) -> int:
    head = answer.partition(b"\r\n\r\n")[0].decode().lower()
    length = int(head.partition(f"{TENSOR_HEADER}:")[2].splitlines()[0])
    return int(np.frombuffer(body_of(answer)[length:], np.float32).argmax())


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


# ---------------------------------------------------------------- all of them

OURS, OURS_THROUGH_TRITON, TRITON = "Convoy", "Convoy through Triton", "Triton, ready tensors"
CLASSIFY = "/v1/models/{model}:classify"
WORKERS = [Variant(workers=count) for count in worker_counts()]
WITHOUT_BATCHES = [Variant(workers=count, max_batch=1) for count in worker_counts()]
IN_STAGES = [Variant(workers=CORES, stages=2)]
EITHER = [*WORKERS, *WITHOUT_BATCHES]

PEERS = [
    Peer(OURS, convoy(), as_it_is(CLASSIFY), of_convoy, WORKERS),
    Peer("FastAPI", app("fastapi"), as_it_is("/classify"), of_app, WITHOUT_BATCHES),
    Peer("LitServe", app("litserve"), as_base64, of_app, EITHER),
    Peer("BentoML", app("bentoml", bentoml_program), as_form, of_app, EITHER),
    Peer("mosec", app("mosec", mosec_program), as_it_is("/inference"), of_app, EITHER + IN_STAGES),
    Peer(
        OURS_THROUGH_TRITON,
        convoy("--runner=triton-local"),
        as_it_is(CLASSIFY),
        of_convoy,
        [Variant()],
        reads_digits=False,
    ),
    Peer(TRITON, triton, as_tensor, of_tensors, [Variant()], reads_digits=False),
]
