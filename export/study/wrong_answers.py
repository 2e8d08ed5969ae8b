"""Draws the digits that a network reads wrong, with its answers and scores.

    python export/study/wrong_answers.py lenet5 --data digits.npz

writes build/wrong-lenet5.png: of MNIST's held-out digits, as they are and drawn, each as the
network sees it; below it "5 not 3, 0.71, 0.20": the answer, the label, the answer's score, and how
unfamiliar the picture is.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from export.bootstrap import continue_in_venv

    continue_in_venv()

from typing import TYPE_CHECKING

import typer

from convoy.process import command_process
from export.bootstrap import require_packages
from export.files import ROOT, TRAINED_WEIGHTS
from export.train import Data, Rows, check_name, read_digits

if TYPE_CHECKING:
    from torch import nn

    from export.samples.images import Pixels
    from export.training.measure import Accepted

COLUMNS, CELL = 8, 112  # pictures in a row; pixels of a cell
ENLARGED = 3


def draw_wrong_answers(
    name: str, data: Data = None, rows: Rows = "shipped", output: Path = ROOT / "build"
) -> None:
    """Draw the held-out digits of MNIST that a network reads wrong."""
    check_name(name)
    require_packages()
    import torch
    from PIL import Image, ImageDraw

    from export.catalog import CATALOG
    from export.training.measure import held_out

    network = CATALOG[name].build().eval()
    network.load_state_dict(torch.load(TRAINED_WEIGHTS / f"{name}.pth", weights_only=True))
    wrong = [
        cell for pictures in held_out(read_digits(data, rows)) for cell in cells(network, pictures)
    ]
    height = -(-len(wrong) // COLUMNS) * CELL
    sheet = Image.new("L", (COLUMNS * CELL, max(height, CELL)), 255)
    pen = ImageDraw.Draw(sheet)
    for number, (text, pixels) in enumerate(wrong):
        left, top = number % COLUMNS * CELL, number // COLUMNS * CELL
        picture = Image.fromarray(pixels[:, :, 0])
        side = ENLARGED * picture.width
        sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (left, top))
        pen.text((left, top + side), text, fill=0)
    output.mkdir(parents=True, exist_ok=True)
    sheet.save(output / f"wrong-{name}.png")
    print(f"{output / f'wrong-{name}.png'}: {len(wrong)} wrong answers")


def cells(network: nn.Module, pictures: Accepted) -> list[tuple[str, Pixels]]:
    """The text and the pixels of each wrong answer."""
    from export.samples.digit_accuracy import scores, unfamiliar_scores

    logits = scores(network, pictures.pixels)
    best, answers = logits.softmax(1).max(1)
    unfamiliar = unfamiliar_scores(network, logits)
    return [
        (f"{answer} not {label}, {score:.2f}, {doubt:.2f}", pixels)
        for answer, label, score, doubt, pixels in zip(
            answers.tolist(),
            pictures.labels.tolist(),
            best.tolist(),
            unfamiliar.tolist(),
            pictures.pixels,
            strict=True,
        )
        if answer != label
    ]


if __name__ == "__main__":
    with command_process():
        typer.run(draw_wrong_answers)
