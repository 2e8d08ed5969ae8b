"""Clients of a cluster: each asks the gateways in turn over both wires, and retries once on the
next one. Prints the outcomes of the requests as JSON.

    python tests/deploy/cluster_load.py SECONDS IMAGE HOST…
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

from convoy import Client
from convoy.errors import ConvoyError

THREADS_PER_WIRE = 2
TIMEOUT_S = 5.0


def ask(clients: list[Client], image: bytes, until_s: float, counts: Counter[str]) -> None:
    turn = cycle(clients)
    while time.monotonic() < until_s:
        counts["asked"] += 1
        for attempt in ("answered", "answered elsewhere"):
            try:
                label = next(turn).classify(image, model="lenet5").best.label
            except ConvoyError as error:
                counts[f"failed: {type(error).__name__}"] += 1
                continue
            counts[attempt if label == "7" else f"wrong: {label}"] += 1
            break
        else:
            counts["lost"] += 1
        time.sleep(0.02)


def main() -> None:
    seconds, image_path, *hosts = sys.argv[1:]
    image, until_s = Path(image_path).read_bytes(), time.monotonic() + float(seconds)
    counts: list[Counter[str]] = []
    threads = []
    for wire in ("{}:8081", "http://{}:8080"):
        for _ in range(THREADS_PER_WIRE):
            clients = [Client(wire.format(host), timeout_s=TIMEOUT_S) for host in hosts]
            counts.append(Counter())
            arguments = (clients, image, until_s, counts[-1])
            threads.append(threading.Thread(target=ask, args=arguments))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(sum(counts, Counter())))


if __name__ == "__main__":
    main()
