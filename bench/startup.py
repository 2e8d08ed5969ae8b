"""Measures how long `convoy serve` takes to become ready, and to stop.

    .venv/bin/python bench/startup.py [--runner triton-local] [--runs 5]

Prints the median and the range of the runs, in seconds.
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request


def start_and_stop(runner: str) -> tuple[float, float]:
    """Returns the seconds until /readyz succeeds, and from SIGTERM until the process ends."""
    ports = [f"--{api}-address=127.0.0.1:0" for api in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "convoy.cli", "serve", f"--runner={runner}", *ports]
    started_s = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    address = next(filter(None, (re.search(r"HTTP +(\S+)", line) for line in process.stdout)))[1]
    while not is_ready(address):
        time.sleep(0.01)  # the precision of the figure
    ready_s = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    process.wait()
    return ready_s - started_s, time.perf_counter() - ready_s


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz") as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runner", default="in-process", choices=("in-process", "triton-local"))
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    times = [start_and_stop(options.runner) for _ in range(options.runs)]
    for name, values in zip(("ready", "stopped"), zip(*times, strict=True), strict=True):
        print(
            f"{options.runner}: {name} in {statistics.median(values):.2f} s, the median of "
            f"{options.runs} runs ({min(values):.2f} to {max(values):.2f})"
        )


if __name__ == "__main__":
    main()
