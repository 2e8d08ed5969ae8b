from pathlib import Path

import numpy as np
import pytest

from export.samples.digits import AUGMENTATIONS, clean, data_set, random_fifth
from export.study.augmentation_study import HEAD, row, study


def test_a_line_has_the_shares_of_each_set() -> None:
    entries = [{"correct": 9, "total": 10}, {"correct": 1, "total": 3}]
    assert row((), entries) == "| nothing | 9 of 10 (90.0%) | 1 of 3 (33.3%) |"
    assert row(("affine", "stroke"), []) == "| affine and stroke |"


@pytest.mark.slow
def test_each_augmentation_is_left_out_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.training.data.NONDIGITS", 20)
    rows = random_fifth().train[:200]
    path = tmp_path / "digits.npz"
    np.savez(path, images=clean(rows)[:, 2:30, 2:30, 0], labels=data_set()[1][rows])
    study("lenet5", data=path, epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert "\n".join(lines[:2]) == HEAD
    assert len(lines) == 2 + 1 + len(AUGMENTATIONS) + 1
    assert len(set(lines)) == len(lines)
