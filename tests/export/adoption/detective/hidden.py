"""Reference systems whose preparation is hidden from the detective, and what they answer.

Each is a network that was made for its own normalisation, fed by code of resizers.py. `settings`
says with which options it should be found; what the project cannot do has none.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from export.adoption.decisions import decide
from export.adoption.detective.findings import Findings
from export.adoption.detective.investigation import investigate, read
from export.adoption.detective.reference import Reference
from export.adoption.options import AdoptOptions
from export.checkpoints.random_weights import initialise
from export.preparation.given import Given
from export.preparation.options import AS_PUBLISHED, PreparationOptions
from export.progress import SILENT
from export.samples.images import PHOTOS, crops, photo
from tests.export.adoption.detective import resizers
from tests.export.adoption.detective.resizers import Floats, Resizer
from tests.export.adoption.networks import ANY_BATCH, export

SIDE = 64
LABELS = tuple("abcdefgh")
LIMIT_S = 600.0

Numbers = tuple[float, float, float]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIGNED = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FRACTIONS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
LEVELS = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
CAFFE = ((103.939 / 255, 116.779 / 255, 123.68 / 255), (1 / 255, 1 / 255, 1 / 255))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
OWN = ((0.61, 0.52, 0.33), (0.31, 0.2, 0.17))  # of a data set that nobody knows


@dataclass(frozen=True)
class Hidden:
    name: str
    mode: str
    resize: int
    resizer: Resizer
    found_as: tuple[str, bool] | None  # interpolation, antialiasing; None: the project has none
    normalisation: tuple[Numbers, Numbers] = IMAGENET
    channels: str = "rgb"
    fill: tuple[int, int, int] | None = None

    @property
    def setting(self) -> Given | None:
        if self.found_as is None:
            return None
        return Given(
            resize=self.resize,
            crop=SIDE,
            interpolation=self.found_as[0],
            antialias=self.found_as[1],
            resize_mode=self.mode,
            channels=self.channels,
            mean=self.normalisation[0],
            std=self.normalisation[1],
            fill=self.fill,
        )

    def feed(self, picture: Image.Image) -> npt.NDArray[np.float32]:
        """3×64×64."""
        pixels = np.asarray(picture, np.float64)
        height, width = pixels.shape[:2]
        resized = self.resizer(pixels, self._size(width, height))
        mean, std = np.array(self.normalisation)
        square = _centred(resized, self.fill or (0, 0, 0))
        ordered = square[..., ::-1] if self.channels == "bgr" else square
        values: npt.NDArray[np.float32] = ((ordered / 255 - mean) / std).astype(np.float32)
        return values.transpose(2, 0, 1)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if self.mode == "squash":
            return self.resize, self.resize
        if self.mode == "pad":
            ratio = self.resize / max(width, height)
            return round(width * ratio), round(height * ratio)
        ratio_of = min(width, height)
        return self.resize * width // ratio_of, self.resize * height // ratio_of


def _centred(pixels: Floats, fill: tuple[int, int, int]) -> Floats:
    """The middle 64×64, with the colour where there is none."""
    height, width = pixels.shape[:2]
    canvas = np.full((max(height, SIDE), max(width, SIDE), 3), fill, np.float64)
    top, left = (canvas.shape[0] - height) // 2, (canvas.shape[1] - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    y, x = (round((side - SIDE) / 2) for side in canvas.shape[:2])
    return canvas[y : y + SIDE, x : x + SIDE]


# As which the project has them: interpolation and antialiasing.
BILINEAR, BILINEAR_SAMPLED = ("bilinear", True), ("bilinear", False)
BICUBIC, NEAREST = ("bicubic", True), ("nearest", True)
SAMPLED, OPENCV = resizers.bilinear_of_skimage, resizers.bilinear_of_opencv
PILLOW_NEAREST = resizers.pillow(Image.Resampling.NEAREST)
PILLOW_BILINEAR = resizers.pillow(Image.Resampling.BILINEAR)
PILLOW_BICUBIC = resizers.pillow(Image.Resampling.BICUBIC)
HIDDEN = (
    Hidden("torchvision, first", "shorter", 73, PILLOW_BILINEAR, BILINEAR),
    Hidden("torchvision, second", "shorter", 66, PILLOW_BILINEAR, BILINEAR),
    Hidden("torchvision on tensors", "shorter", 73, resizers.bilinear_of_torch, BILINEAR),
    Hidden("torchvision, without antialiasing", "shorter", 73, SAMPLED, BILINEAR_SAMPLED),
    Hidden("timm 0.875", "shorter", 73, resizers.bicubic_antialiased, BICUBIC),
    Hidden("timm 0.9, ViT", "shorter", 71, PILLOW_BICUBIC, BICUBIC, SIGNED),
    Hidden("timm 0.95", "shorter", 67, resizers.bicubic_antialiased, BICUBIC),
    Hidden("timm, squash", "squash", 64, PILLOW_BICUBIC, BICUBIC),
    Hidden("timm, border", "pad", 64, PILLOW_BICUBIC, BICUBIC, IMAGENET, "rgb", (124, 116, 104)),
    Hidden("CLIP", "shorter", 64, resizers.bicubic_antialiased, BICUBIC, CLIP),
    Hidden("Keras, caffe", "squash", 64, PILLOW_NEAREST, NEAREST, CAFFE, "bgr"),
    Hidden("Keras, tf", "squash", 64, resizers.nearest_of_skimage, NEAREST, SIGNED),
    Hidden("Keras, EfficientNet", "squash", 64, SAMPLED, BILINEAR_SAMPLED, LEVELS),
    Hidden("TensorFlow Hub", "squash", 64, SAMPLED, BILINEAR_SAMPLED, FRACTIONS),
    Hidden(
        "TensorFlow, antialiased", "squash", 64, resizers.bilinear_antialiased, BILINEAR, FRACTIONS
    ),
    Hidden("TensorFlow, bicubic", "squash", 64, resizers.bicubic_of_tensorflow, None, SIGNED),
    Hidden("Caffe", "squash", 73, OPENCV, BILINEAR_SAMPLED, CAFFE, "bgr"),
    Hidden("OpenCV, linear", "shorter", 64, OPENCV, BILINEAR_SAMPLED, FRACTIONS, "bgr"),
    Hidden("OpenCV, cubic", "shorter", 73, resizers.bicubic_sampled, ("bicubic", False), SIGNED),
    Hidden("OpenCV, area", "squash", 64, resizers.area, ("area", True), FRACTIONS),
    Hidden("OpenCV, nearest", "squash", 64, resizers.nearest_of_opencv, ("nearest", False), LEVELS),
    Hidden("letterbox", "pad", 64, OPENCV, BILINEAR_SAMPLED, FRACTIONS, "rgb", (114, 114, 114)),
    Hidden(
        "Lanczos, odd side",
        "shorter",
        79,
        resizers.lanczos_antialiased,
        ("lanczos", True),
        IMAGENET,
    ),
    Hidden("numbers of its own", "shorter", 70, resizers.bicubic_antialiased, BICUBIC, OWN),
)


def write_pictures(folder: Path, count: int = 12) -> None:
    """Parts of two photographs, of all proportions."""
    random = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        whole = photo(PHOTOS[number % 2])
        width, height = (int(side) for side in random.integers(110, 240, 2))
        x, y = int(random.integers(640 - width)), int(random.integers(427 - height))
        whole.crop((x, y, x + width, y + height)).save(folder / f"{number:02}.png")


def network(hidden: Hidden) -> nn.Module:
    """Normalised N×3×64×64 to logits N×8; it sees single pixels and where they are."""
    module = nn.Sequential(
        nn.Conv2d(3, 12, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2),
        nn.ReLU(),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(16 * 16, len(LABELS)),
    ).eval()
    pictures = [Image.fromarray(pixels) for pixels in crops(16, 1, 96).pixels]
    images = torch.from_numpy(np.stack([hidden.feed(picture) for picture in pictures]))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        initialise(module, images)
    return module


def answers(hidden: Hidden, module: nn.Module, folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The reference system's probabilities."""
    results = {}
    for path in sorted(folder.iterdir()):
        values = torch.from_numpy(hidden.feed(Image.open(path).convert("RGB")))[None]
        with torch.no_grad():
            results[path.name] = module(values).softmax(1)[0].numpy()
    return results


def write_scores(path: Path, scored: dict[str, npt.NDArray[np.float32]], digits: int = 6) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *LABELS])
        for name, scores in scored.items():
            writer.writerow([name, *(f"{score:.{digits}f}" for score in scores)])
    return path


def prepare_case(hidden: Hidden, pictures: Path, folder: Path) -> tuple[list[str], Path]:
    """Writes the file, its labels and the reference's answers; a command's words, and these."""
    module = network(hidden)
    folder.mkdir(parents=True, exist_ok=True)
    file = export(module, folder / "hidden.onnx", torch.zeros(2, 3, SIDE, SIDE), **ANY_BATCH)
    labels = folder / "labels.txt"
    labels.write_text("".join(f"{label}\n" for label in LABELS))
    scores = write_scores(folder / "answers.csv", answers(hidden, module, pictures))
    words = [str(file), "--labels", str(labels), "--outputs", "logits", "--examples", str(pictures)]
    return words, scores


def to_options(
    words: Sequence[str], preparation: PreparationOptions = AS_PUBLISHED
) -> AdoptOptions:
    file, _, labels, _, outputs, _, pictures = words
    decided = decide(Path(file), Path(labels), outputs, "softmax", None, preparation)
    return replace(decided, published_as="hidden", examples_path=Path(pictures))


def find(hidden: Hidden, pictures: Path, folder: Path) -> tuple[Findings, Reference]:
    words, scores = prepare_case(hidden, pictures, folder)
    options = to_options(words)
    reference = read(options, scores)
    return investigate(options, reference, SILENT, LIMIT_S), reference


def verdict(hidden: Hidden, findings: Findings) -> str:
    """Found; equivalent: it fits as well as what is found; near: of what is not ours; refused."""
    if not findings.fits:
        return "refused"
    if hidden.setting is None:
        return "near"
    same = [same_setting(it, hidden.setting) for it in (findings.best, *findings.alike)]
    if same[0]:
        return "found"
    return "equivalent" if any(same) else "WRONG"


def same_setting(setting: Given, hidden: Given) -> bool:
    """The numbers of a normalisation to a hundredth, since they may be computed."""
    names = ("resize", "interpolation", "antialias", "resize_mode", "channels", "fill")
    numbers = [np.array([it.mean, it.std], np.float64) for it in (setting, hidden)]
    is_close = np.abs(numbers[0] - numbers[1]).max() < 0.01
    return bool(is_close) and all(getattr(setting, it) == getattr(hidden, it) for it in names)
