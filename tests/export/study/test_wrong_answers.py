from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.architectures.unfamiliar import ScoresUnfamiliar
from export.samples.digits import clean, data_set, random_fifth
from export.study.wrong_answers import CELL, COLUMNS, cells, draw_wrong_answers
from export.training.measure import Accepted


class Three(ScoresUnfamiliar, torch.nn.Module):
    """Reads all digits as threes."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.eye(10)[3].expand(len(pixels), 10) * 2


def test_only_wrong_answers_are_shown_with_their_scores() -> None:
    pixels = np.zeros((3, 32, 32, 1), np.uint8)
    shown = cells(Three(), Accepted(pixels, np.array([3, 5, 3]), 3))
    assert [text for text, _ in shown] == ["3 not 5, 0.45, 0.06"]
    assert shown[0][1].shape == (32, 32, 1)


def test_wrong_answers_are_drawn_into_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, labels = random_fifth().train, data_set()[1]
    chosen = np.concatenate([rows[labels[rows] == label][:5] for label in range(10)])
    wrong = (labels[chosen] + 1) % 10  # each label is wrong
    np.savez(tmp_path / "digits.npz", images=clean(chosen)[:, 2:30, 2:30, 0], labels=wrong)
    draw_wrong_answers("lenet5", data=tmp_path / "digits.npz", output=tmp_path / "build")
    with Image.open(tmp_path / "build" / "wrong-lenet5.png") as sheet:
        assert sheet.width == COLUMNS * CELL
    assert "15 wrong answers" in capsys.readouterr().out  # 10 held out as they are, 5 of them drawn
