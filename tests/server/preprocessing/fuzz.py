"""Mutated image files, decoded in a child that may die: none may do worse than be refused.

    python tests/server/preprocessing/fuzz.py --seconds 60          (make fuzz)
    python tests/server/preprocessing/fuzz.py --seed 7 --case 1234  (one case again)

First comes the zoo as it is, then mutations of it, each made from the seed and its number alone.
A case fails when the child dies, takes longer than TIMEOUT_S, runs out of MEMORY_BYTES, raises what
is no error of an image, or answers with what is no picture. Its bytes are kept.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import resource
import select
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from server.errors import ServingError
from server.preprocessing.decode import decode
from tests.server.preprocessing.zoo import (
    ANSWER,
    CORRUPT,
    MALFORMED,
    MAX_BYTES,
    MAX_PIXELS,
    TOO_LARGE,
    UNSUPPORTED,
    zoo,
)

TIMEOUT_S = 20  # on a busy machine; a case takes about a millisecond
MEMORY_BYTES = 256 << 20  # beyond what the child has when it starts
INTERESTING = (0, 1, 2, 0x7F, 0x80, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000)


# ---------------------------------------------------------------- the child


def answer_cases() -> None:
    """Reads cases, each after its length, and writes a line of JSON about each."""
    if sys.platform == "linux":  # macOS does not keep the limit
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY_BYTES,) * 2)
    while length := sys.stdin.buffer.read(4):
        outcome = outcome_of(sys.stdin.buffer.read(int.from_bytes(length)))
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"outcome": outcome, "peak_mb": peak_kb >> 10}), flush=True)


def outcome_of(content: bytes) -> str:
    try:
        image = decode(content, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
        image.pixels.tobytes()
    except ServingError as error:
        return "out of memory" if isinstance(error.__cause__, MemoryError) else error.reason
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    is_sound = (
        image.pixels.mode in ("RGB", "RGBX", "L") and image.width * image.height <= MAX_PIXELS
    )
    return ANSWER if is_sound else f"no picture: {image}"


class Child:
    """A process that decodes; it is started again after each death."""

    def __init__(self) -> None:
        command = [sys.executable, __file__, "--child"]
        pipe = subprocess.PIPE  # what libtiff prints goes nowhere
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)

    def decode(self, content: bytes) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(len(content).to_bytes(4) + content)
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"outcome": f"died: {self.process.wait()}"}
        if not select.select([self.process.stdout], [], [], TIMEOUT_S)[0]:
            self.process.kill()
            return {"outcome": f"no answer within {TIMEOUT_S} s"}
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"outcome": f"died: {self.process.wait()}"}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


# ---------------------------------------------------------------- mutations


def mutated(contents: list[bytes], seed: int, case: int) -> bytes:
    choose = random.Random(f"{seed}/{case}")
    content = bytearray(choose.choice(contents))
    for _ in range(choose.choice((1, 1, 1, 2, 4, 16))):
        choose.choice(MUTATIONS)(choose, content, contents)
    return repaired(bytes(content)) if choose.random() < 0.7 else bytes(content)


def place(choose: random.Random, content: bytearray) -> int:
    """Anywhere, but half of the time among the first 200 bytes, where headers are."""
    end = len(content) if choose.random() < 0.5 else min(len(content), 200)
    return choose.randrange(end) if end else 0


def flip(choose: random.Random, content: bytearray, _: list[bytes]) -> None:
    if content:
        content[place(choose, content)] ^= 1 << choose.randrange(8)


def set_number(choose: random.Random, content: bytearray, _: list[bytes]) -> None:
    kind = choose.choice(("B", "<H", ">H", "<I", ">I"))
    size = struct.calcsize(kind)
    value = choose.choice(INTERESTING) + choose.choice((-1, 0, 0, 1))
    at = place(choose, content)
    content[at : at + size] = struct.pack(kind, value & ((1 << 8 * size) - 1))


def remove(choose: random.Random, content: bytearray, _: list[bytes]) -> None:
    at = place(choose, content)
    del content[at : at + choose.choice((1, 2, 4, 64, 1024))]


def repeat(choose: random.Random, content: bytearray, _: list[bytes]) -> None:
    at, length = place(choose, content), choose.choice((1, 4, 16, 256))
    content[at:at] = content[at : at + length] * choose.choice((1, 2, 50))


def cut(choose: random.Random, content: bytearray, _: list[bytes]) -> None:
    del content[place(choose, content) :]


def splice(choose: random.Random, content: bytearray, contents: list[bytes]) -> None:
    other = choose.choice(contents)
    at = choose.randrange(len(other) + 1)
    content[place(choose, content) :] = other[at : at + 100_000]


MUTATIONS = (flip, flip, set_number, set_number, set_number, remove, repeat, cut, splice)


def repaired(content: bytes) -> bytes:
    """With sizes and checksums that fit again, so that what lies behind them is reached."""
    if content[:4] == b"RIFF":
        return content[:4] + struct.pack("<I", max(0, len(content) - 8)) + content[8:]
    if content[:4] != b"\x89PNG":
        return content
    fixed, at = bytearray(content[:8]), 8
    while len(head := content[at : at + 8]) == 8:
        body = content[at + 4 : at + 8 + int.from_bytes(head[:4])]
        fixed += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        at += len(body) + 8
    return bytes(fixed)


# ---------------------------------------------------------------- the run


def cases(seed: int, only_case: int | None) -> Iterator[tuple[str, bytes]]:
    """Names and files: the zoo, then mutations without end; or one of these alone."""
    files = {name: specimen.content for name, specimen in zoo().items()}
    small = [content for content in files.values() if len(content) < 200_000]
    if only_case is None:
        yield from files.items()
    for case in itertools.count(1) if only_case is None else [only_case]:
        yield f"case {case} of seed {seed}", mutated(small, seed, case)


def run(seconds: float, seed: int, only_case: int | None, keep_path: Path) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    peak_mb, slowest = 0, (0.0, "")
    child = Child()
    zoo()  # before the time begins, as the start of the child
    child.decode(b"")
    end_s = time.monotonic() + seconds
    for name, content in cases(seed, only_case):
        started_s = time.monotonic()
        result = child.decode(content)
        slowest = max(slowest, (time.monotonic() - started_s, name))
        peak_mb = max(peak_mb, result.get("peak_mb", 0))
        outcomes[result["outcome"]] += 1
        if result["outcome"] not in (ANSWER, CORRUPT, MALFORMED, UNSUPPORTED, TOO_LARGE):
            keep_path.mkdir(parents=True, exist_ok=True)
            kept = keep_path / f"{re.sub(r'[^a-zA-Z0-9]+', '-', name)}.bin"
            kept.write_bytes(content)
            failures.append(f"{name}: {result['outcome']}; kept as {kept}")
            print(failures[-1], file=sys.stderr)
            child.close()
            child = Child()
        if time.monotonic() > end_s:
            break
    child.close()
    return {
        "seed": seed,
        "tried": outcomes.total(),
        "outcomes": dict(outcomes),
        "peak_mb": peak_mb,
        "slowest": f"{slowest[1]}, {slowest[0]:.2f} s",
        "failures": failures,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Decodes mutated image files for a while.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--case", type=int, help="this case alone")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="for failing files")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        answer_cases()
        return 0
    report = run(options.seconds, options.seed, options.case, options.keep)
    print(json.dumps(report, indent=2))
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
