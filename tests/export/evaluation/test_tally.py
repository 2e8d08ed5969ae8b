import itertools

import pytest

from convoy.v1 import classifier_pb2 as pb
from export.evaluation.tally import CONFUSIONS, EXAMPLES, WORST, Result, Tally, as_dict

LABELS = [pb.Label(name=f"c{index}", id=f"n{index}") for index in range(8)]


def answer(truth: int, best: tuple[int, ...], score: float, path: str = "p") -> Result:
    scores = (score, *[0.0] * (len(best) - 1))
    return Result(path, f"c{truth}", truth, best, scores)


def test_top1_and_top5_are_counted_of_all_and_of_each_class() -> None:
    tally = Tally(8)
    tally.add(answer(0, (0, 1, 2, 3, 4), 0.9))
    tally.add(answer(0, (1, 2, 3, 4, 0), 0.9))
    tally.add(answer(7, (1, 2, 3, 4, 0), 0.9))
    assert (tally.total, tally.top1, tally.top5) == (3, 1, 2)
    classes = as_dict(tally, LABELS)["classes"]
    assert [tuple(class_.values()) for class_ in classes] == [
        (0, "c0", "n0", 2, 1, 2),
        (7, "c7", "n7", 1, 0, 0),
    ]


def test_the_calibration_error_is_that_of_fifteen_bins() -> None:
    """Computed by hand: bins of 4, 1 and 1 pictures; 1/15 itself belongs to the first."""
    tally = Tally(2)
    for is_correct in (True, True, True, False):
        tally.add(answer(0, (0, 1) if is_correct else (1, 0), 0.9))  # 0.9 of 0.75: 4 × 0.15
    tally.add(answer(0, (0, 1), 1.0))  # exactly right
    tally.add(answer(0, (1, 0), 1 / 15))  # 1/15 of 0
    assert tally.calibration_error == pytest.approx((4 * 0.15 + 0 + 1 / 15) / 6)
    assert Tally(2).calibration_error == 0


def test_scores_of_one_bin_are_averaged_before_they_are_compared() -> None:
    tally = Tally(2)
    tally.add(answer(0, (0, 1), 0.52))
    tally.add(answer(0, (1, 0), 0.48))
    assert tally.calibration_error == pytest.approx(0)
    tally.add(answer(0, (1, 0), 0.54))  # the next bin begins at 8/15
    assert tally.calibration_error == pytest.approx(0.54 / 3)


def test_the_largest_confusions_and_the_most_confident_wrong_answers_come_first() -> None:
    tally = Tally(8)
    for number in range(30):
        tally.add(answer(1, (2, 1), number / 30, f"{number}.png"))
    tally.add(answer(2, (1, 2), 0.5))
    figures = as_dict(tally, LABELS)
    assert figures["confusions"] == [
        {"label": "c1", "answer": "c2", "images": 30},
        {"label": "c2", "answer": "c1", "images": 1},
    ]
    assert [worst["path"] for worst in figures["worst"]] == [
        f"{number}.png" for number in range(29, 29 - WORST, -1)
    ]


def test_what_has_no_answer_is_counted_by_its_reason_and_nothing_else() -> None:
    tally = Tally(8)
    for number in range(5):
        tally.add(Result(f"{number}", "c1", 1, excluded="IMAGE_EMPTY", message="empty"))
    tally.add(Result("x", "c9", excluded="UNKNOWN_LABEL", message="no class"))
    assert (tally.total, tally.top1) == (0, 0)
    assert as_dict(tally, LABELS)["excluded"] == [
        {"reason": "IMAGE_EMPTY", "images": 5, "examples": ["0: empty", "1: empty", "2: empty"]},
        {"reason": "UNKNOWN_LABEL", "images": 1, "examples": ["x: no class"]},
    ]


def test_what_is_held_does_not_grow_with_the_number_of_pictures() -> None:
    tally = Tally(8)
    for number, (truth, best) in zip(range(20_000), itertools.cycle(PAIRS), strict=False):
        tally.add(answer(truth, (best, truth), number / 20_000, str(number)))
        tally.add(Result(str(number), "c1", 1, excluded="IMAGE_EMPTY", message="empty"))
    assert len(tally.worst) == len(tally._worst) == WORST
    assert len(tally.confusions) == len(PAIRS) > CONFUSIONS
    assert len(tally.examples["IMAGE_EMPTY"]) == EXAMPLES


PAIRS = list(itertools.permutations(range(8), 2))
