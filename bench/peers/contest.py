"""Turns of servers, one after the other: each alone on the machine, all others stopped."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.http_load import RequestFailed, ask_once, closed_loop
from bench.peers.peers import Peer, Variant
from bench.peers.processes import CpuWatch, ServerProcess, free_port
from bench.peers.served import Served

CONCURRENCY = 16
START_TIMEOUT_S = 240.0  # many start at once
SETTLE_TIMEOUT_S = 15.0  # what watches others by the clock may first see them as lost
MAX_OTHERS = 0.1  # of the cores' time; a round in which others used more is repeated
# The fastest turn counts. In the first, Convoy has one thread: it takes more once it is busy.
SWEEP_ROUNDS = 3
NOT_READY = (OSError, EOFError, TimeoutError, RequestFailed)


@dataclass(frozen=True)
class Turn:
    network: str
    peer: str
    variant: str
    round: int
    per_s: float
    p50_ms: float
    p99_ms: float
    answers: int
    others: float  # share of the cores' time that other processes used


Round = list[Turn]


class Contestant:
    """A peer that runs, set up in one way."""

    def __init__(self, peer: Peer, variant: Variant, served: Served, folder: Path) -> None:
        self.peer, self.variant, self.served = peer, variant, served
        self._port = free_port()
        self._requests = [peer.request(served, content) for content in served.files]
        folder.mkdir()
        command, environment = peer.command(served, variant, self._port, folder)
        self.process = ServerProcess(command, environment, folder / "log")

    def __str__(self) -> str:
        return f"{self.peer.name} ({self.variant})"

    async def labels(self, timeout_s: float) -> list[int]:
        """What it answers to each file, once it answers."""
        await self._answer(timeout_s)
        return [self.peer.label(await ask_once(self._port, each)) for each in self._requests]

    async def turn(self, number: int, warm_s: float, seconds: float) -> Turn:
        """
        Raises:
            RequestFailed, OSError, EOFError: the server failed.
        """
        self.process.resume()
        try:
            await self._answer(SETTLE_TIMEOUT_S)
            watch = CpuWatch(self.process)
            load = await closed_loop(self._port, self._requests, CONCURRENCY, warm_s, seconds)
            others = watch.read_others()
        finally:
            self.process.pause()
        names = (self.served.model, self.peer.name, str(self.variant))
        return Turn(*names, number, load.per_s, load.p50_ms, load.p99_ms, load.answers, others)

    async def _answer(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                await ask_once(self._port, self._requests[0])
                return
            except NOT_READY as error:
                if self.process.has_ended or time.monotonic() > deadline_s:
                    log = self.process.log_path.read_text()[-2000:]
                    raise SystemExit(f"{self.peer.name} does not answer: {error}\n{log}") from error
            await asyncio.sleep(0.2)


async def check_labels(contestants: Sequence[Contestant]) -> None:
    """Waits for all, and stops them until their turns; each must answer as the first does.

    Raises:
        SystemExit: one answers something else.
    """
    expected = await contestants[0].labels(START_TIMEOUT_S)
    for contestant in contestants:
        labels = await contestant.labels(START_TIMEOUT_S)
        if labels != expected:
            raise SystemExit(f"{contestant} answers {labels} and not {expected}")
        print(f"  {contestant}: the labels of {contestants[0].peer.name}", flush=True)
        contestant.process.pause()


async def choose_variants(
    contestants: Sequence[Contestant], warm_s: float, seconds: float
) -> list[Contestant]:
    """The variant of each peer with the highest rate; ends the others."""
    rivals: dict[str, list[Contestant]] = defaultdict(list)
    for contestant in contestants:
        rivals[contestant.peer.name].append(contestant)
    swept = [contestant for group in rivals.values() if len(group) > 1 for contestant in group]
    rounds = [await one_round(swept, -n, warm_s, seconds) for n in range(SWEEP_ROUNDS)]
    rates = {
        contestant: max(turn.per_s for turn in turns)
        for contestant, *turns in zip(swept, *rounds, strict=True)
    }
    for contestant, rate in rates.items():
        print(f"  {contestant}: {rate:.1f}/s", flush=True)
    chosen = [max(group, key=lambda each: rates.get(each, 0.0)) for group in rivals.values()]
    for contestant in set(contestants) - set(chosen):
        contestant.process.stop()
    return chosen


async def one_round(
    contestants: Iterable[Contestant], number: int, warm_s: float, seconds: float
) -> Round:
    return [await contestant.turn(number, warm_s, seconds) for contestant in contestants]


async def measure(
    contestants: Sequence[Contestant], n_rounds: int, warm_s: float, seconds: float
) -> list[Round]:
    """Rounds in changing order: those in which other processes used least of the cores.

    Rounds in which they used much are repeated, up to a third of all.
    """
    order, rounds = random.Random(0), list[Round]()
    for number in range(n_rounds + n_rounds // 3 + 1):
        if sum(not is_disturbed(turns) for turns in rounds) == n_rounds:
            break
        shuffled = order.sample(contestants, len(contestants))
        try:
            turns = await one_round(shuffled, number, warm_s, seconds)
        except NOT_READY as error:
            print(f"  round {number} is repeated: {error!r}", flush=True)
            continue
        if number:  # the first one warms up
            rounds.append(turns)
        print(f"  round {number}: others used {used_by_others(turns):.0%}", flush=True)
    if not rounds:
        raise SystemExit("no round was completed")
    return sorted(rounds, key=used_by_others)[:n_rounds]


def is_disturbed(turns: Round) -> bool:
    return used_by_others(turns) > MAX_OTHERS


def used_by_others(turns: Round) -> float:
    """In the turn in which they used most."""
    return max(turn.others for turn in turns)
