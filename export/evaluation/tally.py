"""What is counted of the answers to labelled pictures. Nothing grows with their number.

Top-1 and top-5, of all and of each class; confusions; the most confident wrong answers; and the
expected calibration error of Guo et al. 2017, "On Calibration of Modern Neural Networks": how far
scores are from how often such answers are right, on average over 15 bins of equal width.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from convoy.v1 import classifier_pb2 as pb

TOP = 5
BINS = 15
# Why there is no answer, beside the reasons of the gateway.
UNKNOWN_LABEL, UNREADABLE, REFUSED = "UNKNOWN_LABEL", "UNREADABLE_FILE", "REFUSED"
CONFUSIONS, WORST, EXAMPLES = 10, 10, 3  # the most that are reported


@dataclass(frozen=True)
class Result:
    """The answer to one picture, or why it has none."""

    path: str
    label: str
    truth: int | None = None  # the class of that label
    best: tuple[int, ...] = ()  # classes, best first, at most TOP
    scores: tuple[float, ...] = ()
    excluded: str = ""  # the kind of reason, such as IMAGE_DECODE_FAILED
    message: str = ""

    @property
    def is_correct(self) -> bool:
        return bool(self.best) and self.best[0] == self.truth


@dataclass
class ClassTally:
    total: int = 0
    top1: int = 0
    top5: int = 0


@dataclass
class Bin:
    total: int = 0
    correct: int = 0
    score: float = 0.0  # their sum


class Tally:
    def __init__(self, classes: int) -> None:
        self.classes = [ClassTally() for _ in range(classes)]
        self.confusions: Counter[tuple[int, int]] = Counter()  # (truth, answer), wrong ones alone
        self.excluded: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}  # of what is excluded, by its reason
        self._bins = [Bin() for _ in range(BINS)]
        self._worst: list[tuple[float, int, Result]] = []  # a heap
        self._order = count()  # breaks ties

    def add(self, result: Result) -> None:
        if result.excluded or result.truth is None:
            self._exclude(result)
            return
        best, score = result.best[0], result.scores[0]
        tally = self.classes[result.truth]
        tally.total += 1
        tally.top1 += result.is_correct
        tally.top5 += result.truth in result.best[:TOP]
        # Bin m is ((m-1)/BINS, m/BINS].
        bin_ = self._bins[min(max(math.ceil(score * BINS) - 1, 0), BINS - 1)]
        bin_.total += 1
        bin_.correct += result.is_correct
        bin_.score += score
        if not result.is_correct:
            self.confusions[result.truth, best] += 1
            self._keep_if_worst(score, result)

    def _exclude(self, result: Result) -> None:
        self.excluded[result.excluded] += 1
        examples = self.examples.setdefault(result.excluded, [])
        if len(examples) < EXAMPLES:
            examples.append(f"{result.path}: {result.message}")

    def _keep_if_worst(self, score: float, result: Result) -> None:
        heapq.heappush(self._worst, (score, -next(self._order), result))
        if len(self._worst) > WORST:
            heapq.heappop(self._worst)

    # ------------------------------------------------------------------------ figures

    @property
    def total(self) -> int:
        return sum(tally.total for tally in self.classes)

    @property
    def top1(self) -> int:
        return sum(tally.top1 for tally in self.classes)

    @property
    def top5(self) -> int:
        return sum(tally.top5 for tally in self.classes)

    @property
    def calibration_error(self) -> float:
        gaps = (abs(bin_.correct - bin_.score) for bin_ in self._bins)
        return sum(gaps) / self.total if self.total else 0.0

    @property
    def worst(self) -> list[Result]:
        """The most confident wrong answers, the most confident first."""
        return [result for _, _, result in sorted(self._worst, reverse=True)]


def as_dict(tally: Tally, labels: Sequence[pb.Label]) -> dict[str, Any]:
    """The figures for programs; of classes, those with pictures."""

    def name(index: int) -> str:
        return labels[index].name

    return {
        "images": tally.total,
        "top1_correct": tally.top1,
        "top5_correct": tally.top5,
        "calibration_error": tally.calibration_error,
        "classes": [
            {
                "index": index,
                "label": name(index),
                "id": labels[index].id,
                "images": class_.total,
                "top1_correct": class_.top1,
                "top5_correct": class_.top5,
            }
            for index, class_ in enumerate(tally.classes)
            if class_.total
        ],
        "confusions": [
            {"label": name(truth), "answer": name(answer), "images": images}
            for (truth, answer), images in tally.confusions.most_common(CONFUSIONS)
        ],
        "worst": [
            {
                "path": result.path,
                "label": result.label,
                "answer": name(result.best[0]),
                "score": result.scores[0],
            }
            for result in tally.worst
        ],
        "excluded": [
            {"reason": reason, "images": images, "examples": tally.examples[reason]}
            for reason, images in tally.excluded.most_common()
        ],
    }
