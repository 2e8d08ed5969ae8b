"""The comparison with other servers: what it counts, and that it runs without their packages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.peers.contest import Turn
from bench.peers.http_load import (
    Answer,
    RequestFailed,
    closed_loop,
    n_warm,
    request_bytes,
    summarise,
)
from bench.peers.peers import OURS, OURS_THROUGH_TRITON, TRITON
from bench.peers.processes import ServerProcess, descendants
from bench.peers.report import compare, draw, render_table

ROOT = Path(__file__).resolve().parents[2]


def turn(peer: str, number: int, per_s: float) -> Turn:
    return Turn("lenet5", peer, "1 worker", number, per_s, 1.0, 1000 / per_s, 100, 0.0)


def test_answers_in_batches_are_counted_from_one_batch_to_another() -> None:
    batches = [Answer(float(second), 0.5) for second in range(7) for _ in range(8)]
    load = summarise(batches, n_warm(batches, 1.9, concurrency=8))
    assert (load.per_s, load.answers) == (8.0, 40)  # those of seconds 2 to 6, since second 1


def test_what_a_server_was_asked_at_the_start_does_not_count_however_late_it_answers() -> None:
    batches = [Answer(float(second), 3.0) for second in (3, 6, 9) for _ in range(16)]
    load = summarise(batches, n_warm(batches, 1.0, concurrency=16))
    assert load.per_s == pytest.approx(16 / 3)
    assert load.answers == 32


@pytest.mark.parametrize("status", [200, 503])
async def test_the_loop_keeps_its_connections_busy_and_tells_failures(status: int) -> None:
    bodies: list[bytes] = []
    connections, ended = 0, asyncio.Semaphore(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                bodies.append(await reader.readexactly(length))
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % status)
        ended.release()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    requests = [request_bytes("/", b"one"), request_bytes("/", b"two")]
    if status == 200:
        load = await closed_loop(port, requests, 3, 0.0, 0.2)
        assert load.answers > 0
        assert set(bodies) == {b"one", b"two"}
        assert connections == 3
    else:
        with pytest.raises(RequestFailed, match="503"):
            await closed_loop(port, requests, 3, 0.0, 0.2)
    for _ in range(3):
        await ended.acquire()
    server.close()


def is_running(pid: int) -> bool:
    """What has ended may wait for its parent to notice."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_server_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    program = "import subprocess; subprocess.run(['sleep', '600'])"
    process = ServerProcess([sys.executable, "-c", program], {}, tmp_path / "log")
    try:
        while len(family := descendants(process.pid)) < 2:
            assert not process.has_ended
        process.pause()
    finally:
        process.stop()
    while any(is_running(one.pid) for one in family):
        time.sleep(0.01)


def test_a_difference_is_told_only_where_the_interval_shows_one() -> None:
    rounds = [
        [turn(OURS, n, 100.0), turn("mosec", n, 99 + 2 * (n % 2)), turn("FastAPI", n, 50.0)]
        for n in range(15)
    ]
    rows = {row.peer: row for row in compare(rounds)}
    assert rows[OURS].rate is None
    table = render_table(list(rows.values()))
    assert "2.00 (2.00 to 2.00): faster" in table
    assert table.count("not distinguishable") == 2  # mosec's rate, and its p99
    ElementTree.fromstring(draw(list(rows.values())))


def test_triton_is_compared_with_the_gateway_in_front_of_one() -> None:
    peers = {OURS: 400.0, OURS_THROUGH_TRITON: 95.0, TRITON: 100.0}
    rounds = [[turn(peer, n, rate) for peer, rate in peers.items()] for n in range(6)]
    rows = {row.peer: row for row in compare(rounds)}
    rate = rows[TRITON].rate
    assert rate and rate.value == pytest.approx(0.95)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.usefixtures("tritonserver")
def test_the_command_compares_with_a_peer_that_needs_no_packages(tmp_path: Path) -> None:
    file, drawing = tmp_path / "figures.json", tmp_path / "ratios.svg"
    command = [sys.executable, "-m", "bench.peers", "--quick", "--networks=lenet5"]
    command += [f"--peers={TRITON}", f"--peers={OURS_THROUGH_TRITON}"]
    subprocess.run([*command, f"--json={file}", f"--draw={drawing}"], cwd=ROOT, check=True)
    rows = json.loads(file.read_text())["rows"]
    assert [row["peer"] for row in rows] == sorted([OURS, OURS_THROUGH_TRITON, TRITON])
    assert all(row["per_s"] > 0 for row in rows)
    ElementTree.parse(drawing)
