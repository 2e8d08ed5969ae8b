"""The log: what a request leaves in it, and that nothing about it holds up the gateway."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import grpc
import httpx
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convoy.v1 import classifier_pb2 as pb
from convoy.v1 import classifier_pb2_grpc
from server.observability.logs import (
    MAX_WAITING_LINES,
    JsonFormatter,
    LineHandler,
    TextFormatter,
    is_fault,
)

ROOT = Path(__file__).resolve().parents[3]
# Ends a line, forges another one, erases a terminal's line, turns the direction of writing.
HOSTILE = 'x"}\n{"message": "forged"}\r\x1b[2K\u2028\u202e\x00'


class Gateway(Protocol):
    http: str
    grpc: str
    admin: str
    log_path: Path

    def log(self) -> str: ...
    def wait_for(self, is_so: Callable[[], bool]) -> None: ...


def end_of_log(gateway: Gateway) -> int:
    """In bytes, once the gateway has told of its start."""
    gateway.wait_for(lambda: "ready in" in gateway.log())
    return gateway.log_path.stat().st_size


def lines_after(gateway: Gateway, start: int, request_id: str) -> list[dict[str, Any]]:
    """The log's lines from the byte `start` on, once there is one of that request."""
    gateway.wait_for(lambda: request_id in gateway.log())
    written = gateway.log_path.read_bytes()[start:].decode()
    return [json.loads(line) for line in written.splitlines()]


# ---------------------------------------------------------------- what a request leaves


def test_a_request_leaves_one_line(lenet_gateway: Gateway, digit: bytes) -> None:
    start = end_of_log(lenet_gateway)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    httpx.post(
        f"{lenet_gateway.http}/v1/models/lenet5:classify",
        params={"request_id": "one-line"},
        headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"},
        content=digit,
    ).raise_for_status()
    (line,) = lines_after(lenet_gateway, start, "one-line")
    assert (line["message"], line["outcome"], line["door"]) == ("classified", "OK", "http")
    assert (line["model"], line["version"], line["batch_size"]) == ("lenet5", "1", 1)
    assert (line["image_bytes"], line["image"]) == (len(digit), "PNG 300x300")
    assert (line["request_id"], line["trace_id"]) == ("one-line", trace_id)
    assert line["total_ms"] >= line["infer_ms"] > 0
    assert line["decode_ms"] > 0 and line["preprocess_ms"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_a_refused_request_leaves_one_line_with_its_reason(lenet_gateway: Gateway) -> None:
    start = end_of_log(lenet_gateway)
    request = pb.ClassifyRequest(
        model="lenet5", image=pb.Image(content=b"secret picture"), request_id="refused"
    )
    with grpc.insecure_channel(lenet_gateway.grpc) as channel, pytest.raises(grpc.RpcError):
        classifier_pb2_grpc.ImageClassifierStub(channel).Classify(request)
    (line,) = lines_after(lenet_gateway, start, "refused")
    assert (line["outcome"], line["door"]) == ("IMAGE_FORMAT_UNSUPPORTED", "grpc")
    assert (line["model"], line["image_bytes"]) == ("lenet5", 14)
    assert "trace_id" not in line
    assert "secret" not in str(line)


def test_probes_leave_no_line(lenet_gateway: Gateway) -> None:
    start = end_of_log(lenet_gateway)
    for door in (lenet_gateway.http, lenet_gateway.admin):
        httpx.get(f"{door}/livez").raise_for_status()
        httpx.get(f"{door}/readyz").raise_for_status()
    httpx.get(f"{lenet_gateway.admin}/metrics").raise_for_status()
    with grpc.insecure_channel(lenet_gateway.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest())
    httpx.post(
        f"{lenet_gateway.http}/v1/models/lenet5:classify",
        params={"request_id": "after-probes"},
        content=b"",
    )
    assert len(lines_after(lenet_gateway, start, "after-probes")) == 1


def test_a_client_cannot_forge_a_line(lenet_gateway: Gateway, digit: bytes) -> None:
    start = end_of_log(lenet_gateway)
    request = pb.ClassifyRequest(
        model=HOSTILE, version=HOSTILE, image=pb.Image(content=digit), request_id="forger"
    )
    with grpc.insecure_channel(lenet_gateway.grpc) as channel, pytest.raises(grpc.RpcError):
        classifier_pb2_grpc.ImageClassifierStub(channel).Classify(request)
    (line,) = lines_after(lenet_gateway, start, "forger")
    assert line["model"] == HOSTILE


# ---------------------------------------------------------------- how a line is written


@contextlib.contextmanager
def logger_to(descriptor: int, formatter: logging.Formatter) -> Iterator[logging.Logger]:
    handler = LineHandler(descriptor)
    handler.setFormatter(formatter)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_text_is_one_line_a_record_whatever_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file, logger_to(file.fileno(), TextFormatter()) as logger:
        logger.info("%s", HOSTILE, extra={"model": HOSTILE})
    (line,) = path.read_text().splitlines()
    assert line.isprintable()
    assert line.count(r"\n") == 2


def test_a_traceback_in_text_is_indented_so_that_no_line_of_it_passes_for_a_record(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file, logger_to(file.fileno(), TextFormatter()) as logger:
        try:
            raise ValueError("first\n12:00:00 INFO forged")
        except ValueError:
            logger.exception("a fault")
    first, *rest = path.read_text().splitlines()
    assert first.endswith("ERROR a fault")
    assert rest and all(line.startswith("    ") for line in rest)


def test_grpcs_tracebacks_of_calls_that_have_ended_are_left_out() -> None:
    cygrpc: Any = importlib.import_module("grpc._cython.cygrpc")
    records = []
    for error in (cygrpc.ExecuteBatchError("failed"), ValueError("a fault")):
        try:
            raise error
        except Exception:
            exc_info = sys.exc_info()
        records.append(logging.LogRecord("grpc", logging.ERROR, "", 1, "raised", (), exc_info))
    assert [is_fault(record) for record in records] == [False, True]


def test_a_line_survives_what_utf8_cannot_say(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file, logger_to(file.fileno(), TextFormatter()) as logger:
        logger.info("half a pair: %s", "\ud800")
    assert path.read_text().endswith("half a pair: \\ud800\n")


def test_lines_that_a_full_disk_does_not_take_are_counted() -> None:
    with Path("/dev/full").open("wb") as full, logger_to(full.fileno(), JsonFormatter()) as logger:
        for number in range(3):
            logger.info("line %d", number)
        (handler,) = logger.handlers
        handler.close()
        assert isinstance(handler, LineHandler)
        assert handler.lost_lines == 3


def test_a_reader_that_stopped_loses_lines_and_holds_up_nobody() -> None:
    more = 1000
    reader, writer = os.pipe()
    with logger_to(writer, JsonFormatter()) as logger:
        for number in range(MAX_WAITING_LINES + more):
            logger.info("line %d %s", number, "x" * 200)
        (handler,) = logger.handlers
        assert isinstance(handler, LineHandler)
        held = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) // 200  # what the pipe itself took, at most
        assert more - held - 1 <= handler.lost_lines <= more
        handler.close()
        os.close(reader)
        # Before the number of the descriptor is another file's, the writer's thread has to end.
        while handler._writer.is_alive():
            handler.close()
    os.close(writer)


def test_a_line_that_was_cut_does_not_swallow_the_next(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with logger_to(writer, JsonFormatter()) as logger, os.fdopen(reader, "rb") as pipe:
        (handler,) = logger.handlers
        assert isinstance(handler, LineHandler)
        logger.info("x" * room)
        deadline_s = time.monotonic() + 10
        while not handler.lost_lines:
            assert time.monotonic() < deadline_s, "the line was not cut"
            time.sleep(0.01)
        os.read(reader, 1 << 20)  # what the pipe took, which need not be all of its room
        logger.info("the next")
        logger.handlers[0].close()
        os.close(writer)
        cut, line = pipe.read().decode().split("\n", 1)
    assert cut == ""
    assert json.loads(line)["message"] == "the next"


# ---------------------------------------------------------------- the gateway under a bad log


@contextlib.contextmanager
def gateway_logging_to(
    descriptor: int, repository: Path, *options: str
) -> Iterator[tuple[str, str, str]]:
    """The addresses of its HTTP, its gRPC and its admin port; it must end well in the end."""
    ports = [f"--{door}-address=127.0.0.1:0" for door in ("http", "grpc", "metrics")]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "convoy.cli",
            "serve",
            *ports,
            f"--repository={repository}",
            *options,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=descriptor,
        text=True,
    )
    assert process.stdout
    try:
        greeting = ""
        while "admin" not in greeting:
            greeting += process.stdout.readline()
        http, address, admin = re.findall(r"^  \w+ +([\w:/]*[\d.]+:\d+)", greeting, re.MULTILINE)
        deadline_s = time.monotonic() + 30
        while httpx.get(f"{admin}/readyz").status_code != 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        yield http, address, admin
        process.terminate()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def lost_lines(admin: str) -> float:
    match = re.search(
        r"^convoy_log_lines_lost_total (\S+)$",
        httpx.get(f"{admin}/metrics").text,
        re.MULTILINE,
    )
    assert match
    return float(match[1])


def test_a_full_disk_costs_log_lines_and_nothing_else(repository: Path, digit: bytes) -> None:
    with (
        Path("/dev/full").open("wb") as full,
        gateway_logging_to(full.fileno(), repository) as (http, _, admin),
    ):
        before = lost_lines(admin)
        for _ in range(3):
            httpx.post(f"{http}/v1/models/lenet5:classify", content=digit).raise_for_status()
        deadline_s = time.monotonic() + 30
        while lost_lines(admin) < before + 3:  # lines are written beside the requests
            assert time.monotonic() < deadline_s, "the lines are not counted"
            time.sleep(0.05)


def test_a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end(
    repository: Path, digit: bytes
) -> None:
    reader, writer = os.pipe()
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"x" * (room - 1))  # full before the gateway starts
    try:
        with gateway_logging_to(writer, repository) as (http, _, _):
            for _ in range(3):
                answer = httpx.post(f"{http}/v1/models/lenet5:classify", content=digit, timeout=5)
                answer.raise_for_status()
    finally:
        os.close(reader)
        os.close(writer)


@pytest.fixture
def encrypted(tmp_path: Path) -> list[str]:
    """Options for TLS; the authority is in ca.pem."""
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "gateway.pem"))
    return [f"--tls-{name}={tmp_path / 'gateway.pem'}" for name in ("certificate", "key")]


def fail_handshakes(address: str) -> None:
    host, port = address.split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"no handshake" * 10)
            while connection.recv(1 << 16):
                pass


def test_failed_handshakes_hold_up_no_call_while_nobody_reads_the_log(
    repository: Path, encrypted: list[str], tmp_path: Path
) -> None:
    """gRPC's core would write a line for each, from the threads that serve all connections."""
    reader, writer = os.pipe()
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"x" * (room - 1))
    try:
        with gateway_logging_to(writer, repository, *encrypted) as (_, address, _):
            fail_handshakes(address)
            trusting = grpc.ssl_channel_credentials((tmp_path / "ca.pem").read_bytes())
            with grpc.secure_channel(address, trusting) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                assert health.Check(health_pb2.HealthCheckRequest(), timeout=10)
    finally:
        os.close(reader)
        os.close(writer)


def test_failed_handshakes_leave_no_line_that_is_no_json(
    repository: Path, encrypted: list[str], tmp_path: Path
) -> None:
    with (
        (tmp_path / "log").open("wb") as log,
        gateway_logging_to(log.fileno(), repository, *encrypted) as (_, address, _),
    ):
        fail_handshakes(address)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines and all(json.loads(line)["message"] for line in lines)
