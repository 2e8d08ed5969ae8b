"""Convoy beside other servers of the same network: FastAPI, LitServe, BentoML, mosec, Triton.

    .venv/bin/python -m bench.peers [--quick] [--rounds 15] [--json FILE] [--draw FILE]

All get the same files over HTTP from the same client, 16 at once, and compute the same graph in the
same ONNX Runtime; Triton gets tensors that are ready. Each peer is set up as its documentation says
(apps/), and first tried with several numbers of workers, with and without batches; the fastest way
counts. Then the servers take turns, each alone: the others are stopped meanwhile. What is compared
are two turns of the same round: the median with a 95 % interval of the median. A round in which
other processes used the cores is repeated. Peers are installed in build/peers/, the first time;
`--install` does no more than that. Linux alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bench.peers import report
from bench.peers.contest import Contestant, Round, check_labels, choose_variants, measure
from bench.peers.environments import REQUIREMENTS, install
from bench.peers.peers import PEERS, Peer
from bench.peers.served import NETWORKS, Served
from server.runners import tritonserver_wheel
from server.settings import Settings

# Seconds before and of what is measured in a turn: 16 photos take ResNet-50 a second on two cores.
TIMES_S = {"lenet5": (0.3, 1.5), "resnet50": (1.0, 3.0)}
QUICK_S = (0.2, 1.0)


async def contest(
    served: Served, peers: Sequence[Peer], n_rounds: int, *, quick: bool
) -> list[Round]:
    times_s = QUICK_S if quick else TIMES_S[served.model]
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        contestants: list[Contestant] = []
        for peer in peers:
            for variant in peer.variants_for(served)[: 1 if quick else None]:
                place = folder / str(len(contestants))
                contestants.append(Contestant(peer, variant, served, place))
                running.callback(contestants[-1].process.stop)
        await check_labels(contestants)
        if not quick:
            contestants = await choose_variants(contestants, *times_s)
        return await measure(contestants, n_rounds, *times_s)


def main(
    # typer needs a list, and copies it.
    networks: Annotated[list[str], typer.Option(help="Only these.")] = list(NETWORKS),  # noqa: B006
    peers: Annotated[list[str] | None, typer.Option(help="Only these, beside Convoy.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 15,
    quick: Annotated[bool, typer.Option("--quick", help="Prove that each answers alike.")] = False,
    install_only: Annotated[bool, typer.Option("--install", help="Install, and no more.")] = False,
    file: Annotated[Path | None, typer.Option("--json", help="Write all turns here.")] = None,
    drawing: Annotated[Path | None, typer.Option("--draw", help="Draw the ratios here.")] = None,
) -> None:
    """Compare Convoy with other servers."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # and not without the servers
    if install_only:
        prepare()
        return
    rows: list[report.Row] = []
    turns = []
    for name in networks:
        served = NETWORKS[name]()
        chosen = [peer for peer in PEERS if peer.takes_part(served, peers)]
        print(f"{name}: starting {len(chosen)} servers", flush=True)
        measured = asyncio.run(contest(served, chosen, 1 if quick else rounds, quick=quick))
        print(f"{name}: {report.count_disturbed(measured)}")
        rows += report.compare(measured)
        turns += [asdict(turn) for turns_of_round in measured for turn in turns_of_round]
    print(report.render_table(rows))
    if file:
        figures = {"rows": [asdict(row) for row in rows], "turns": turns}
        file.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    if drawing:
        drawing.write_text(report.draw(rows), encoding="utf-8")


def prepare() -> None:
    """All that a measurement would otherwise install and build first."""
    for pins in sorted(REQUIREMENTS.iterdir()):
        install(pins.stem)
    tritonserver_wheel.install(Settings().cache)
    for network in NETWORKS.values():
        network()


if __name__ == "__main__":
    typer.run(main)
