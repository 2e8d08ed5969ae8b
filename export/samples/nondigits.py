"""What is no digit: letters, scribbles, signs and two digits at once, to train and to measure with.

A network of ten classes answers a letter with a digit unless it was shown what is none. Training
sees hand-like letters, drawn from the strokes below; measuring sees a font's letters and scribbles
of another kind, so that what is measured was not trained on.

Letters that many people write like a digit are left out of training, and counted apart when
measured (AMBIGUOUS).
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from export.samples.digits import Stroke, with_fields

Bytes = npt.NDArray[np.uint8]

MEASURING_SEED = 2026
GRID = 120  # points, the side of the sheet that a sign is drawn on
LETTERS = "ACDEFGHJKLMNPQRTUVWXYacdefhijkmnprtuvwxy"
AMBIGUOUS = "IOlSZBqgoszb"  # digits in many hands

# The strokes of signs on a grid 4 wide and 6 high: points as pairs of digits, x then y from the
# top; a comma lifts the pen.
# fmt: off
SIGNS = {
    "A": "062046,1333", "C": "4110011516264544", "D": "0006264542302000", "E": "40000646,0333",
    "F": "400006,0333", "G": "411001050616364543422", "H": "0006,4046,0343", "J": "3035261605",
    "K": "0006,400346", "L": "000646", "M": "0600234046", "N": "06004640", "P": "060030413203",
    "Q": "2001053645413020,2546", "R": "060030413203,1346", "T": "0040,2026", "U": "0005163645404",
    "V": "002640", "W": "0016233640", "X": "0046,4006", "Y": "002340,2326",
    "a": "4232121415263645,4246", "c": "42311214153646", "d": "4046,4332131526364",
    "e": "13434232120405264645", "f": "4130201136,0333", "h": "0006,04234346", "i": "2226,2021",
    "j": "3235261605,3031", "k": "0006,420446", "m": "0602,032226,23324346", "n": "0602,03224246",
    "p": "0206,022243442505", "r": "0206,03123242", "t": "20253646,0242", "u": "020516364542,4246",
    "v": "022642", "w": "0216233642", "x": "0246,4206", "y": "0224,421606", "+": "2125,0343",
    "-": "0343", "=": "0242,0444", "<": "400346", "^": "052145", "#": "1016,3036,0242,0444",
    "*": "2026,0145,4105", "?": "01203041322324,2526", "triangle": "20460620",
    "star": "06162036024206", "arrow": "0343,214325", "check": "042640",
    "heart": "260100102130404126", "alpha": "40130405162640,2646",
    "spiral": "233334442414020120314246", "Sigma": "4000230646", "Pi": "0040,1016,3036",
    "lambda": "001046,2306", "phi": "2026,2131424435251504023121",
}
# fmt: on


def sign_points(strokes: str) -> list[npt.NDArray[np.float64]]:
    """The pen's strokes, each N×2: x in 0..4, y in 0..6."""
    return [
        np.array([(int(a), int(b)) for a, b in zip(part[::2], part[1::2], strict=False)], float)
        for part in strokes.split(",")
    ]


def handwritten_sign(random: np.random.Generator) -> Stroke:
    """One of SIGNS as a hand may write it: corners moved, curves instead of corners, any slant."""
    strokes = sign_points(SIGNS[str(random.choice(list(SIGNS)))])
    stretch = np.array([random.uniform(12, 20), random.uniform(13, 17)])
    curved = random.random() < 0.6
    paths = []
    for points in strokes:
        moved = points + random.normal(0, 0.18, points.shape)
        paths.append(60 + (smooth(moved) if curved else moved) * stretch - stretch * (2, 3))
    return drawn_stroke(paths, random)


def scribble(random: np.random.Generator) -> Stroke:
    """A curve through 3 to 9 points anywhere, at times in two strokes, at times cornered."""
    paths = []
    for _ in range(int(random.integers(1, 3))):
        points = random.uniform(20, 100, (int(random.integers(3, 8)), 2))
        paths.append(smooth(points) if random.random() < 0.7 else points)
    return drawn_stroke(paths, random)


def smooth(points: npt.NDArray[np.float64], rounds: int = 3) -> npt.NDArray[np.float64]:
    """Corners cut off (Chaikin 1974): each round puts two points on every side of the path."""
    for _ in range(rounds):
        before, after = points[:-1], points[1:]
        cut = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], axis=1)
        points = np.concatenate([points[:1], cut.reshape(-1, 2), points[-1:]])
    return points


def drawn_stroke(paths: list[npt.NDArray[np.float64]], random: np.random.Generator) -> Stroke:
    """The fields of paths on the grid, inked with a pen of some width."""
    sheet = Image.new("L", (GRID, GRID), 0)
    pen = ImageDraw.Draw(sheet)
    for path in paths:
        pen.line([(x, y) for x, y in path], fill=255, width=1)
    skeleton = np.asarray(sheet) > 0
    return inked(skeleton, radius=random.uniform(3, 8))


def inked(skeleton: npt.NDArray[np.bool_], radius: float) -> Stroke:
    """A stroke of even width along a skeleton."""
    from scipy.ndimage import distance_transform_edt

    distance = distance_transform_edt(~skeleton).astype(np.float32)
    grey = np.clip((radius - distance) / 4 + 0.5, 0, 1).astype(np.float32)
    return with_fields(grey, distance)


def two_digits(one: Bytes, other: Bytes, random: np.random.Generator) -> Bytes:
    """Two digits of MNIST, 28×28, side by side, so close that they are one mark: H×W."""
    left, right = _ink_columns(one), _ink_columns(other)
    overlap = int(random.integers(1, 4))
    shift = int(random.integers(0, 7))
    sheet = np.zeros((40, left.shape[1] + right.shape[1] - overlap + 4), np.uint8)
    for part, top, start in ((left, 6, 2), (right, 3 + shift, 2 + left.shape[1] - overlap)):
        window = sheet[top : top + 28, start : start + part.shape[1]]
        np.maximum(window, part, out=window)
    return sheet


def _ink_columns(image: Bytes) -> Bytes:
    columns = np.flatnonzero((image > 60).any(axis=0))
    return image[:, columns[0] : columns[-1] + 1]


def training_nondigits(digits: Bytes, count: int, seed: int) -> list[Stroke]:
    """More than half are signs, a fifth are scribbles, the others are two of the digits given.

    `digits` is N×28×28.
    """
    from export.samples.mnist import stroke

    random = np.random.default_rng(seed)
    strokes = []
    for _ in range(count):
        kind = random.random()
        if kind < 0.55:
            strokes.append(handwritten_sign(random))
        elif kind < 0.75 or len(digits) < 2:
            strokes.append(scribble(random))
        else:
            one, other = random.choice(len(digits), 2, replace=False)
            strokes.append(stroke(two_digits(digits[one], digits[other], random)))
    return strokes


# ---------------------------------------------------------------- to measure with


def font_letter(letter: str, random: np.random.Generator) -> Bytes:
    """A letter of Pillow's own font, dark on a white sheet, a little turned: 300×300."""
    font = ImageFont.load_default(int(random.integers(90, 181)))
    sheet = Image.new("L", (300, 300), 255)
    level = int(random.integers(0, 80))
    ImageDraw.Draw(sheet).text((150, 150), letter, fill=level, font=font, anchor="mm")
    turned = sheet.rotate(random.uniform(-8, 8), Image.Resampling.BICUBIC, fillcolor=255)
    return np.asarray(turned)


def line_scribble(random: np.random.Generator) -> Bytes:
    """3 to 8 straight lines as one stroke, dark on a white sheet: 300×300."""
    sheet = Image.new("L", (300, 300), 255)
    points = random.integers(60, 241, (int(random.integers(4, 10)), 2))
    width = int(random.integers(5, 15))
    ImageDraw.Draw(sheet).line([(int(x), int(y)) for x, y in points], 30, width, joint="curve")
    return np.asarray(sheet)


def font_letters(letters: str, count: int = 120) -> list[bytes]:
    """PNG files of the letters in turn."""
    random = np.random.default_rng(MEASURING_SEED)
    return [_png(font_letter(letters[n % len(letters)], random)) for n in range(count)]


def measuring_nondigits() -> dict[str, list[bytes]]:
    """PNG files of what is no digit, by kind; nothing of them is used for training."""
    random = np.random.default_rng(MEASURING_SEED)
    empty = random.normal(200, 8, (100, 120, 120)).clip(0, 255).astype(np.uint8)
    return {
        "letters": font_letters(LETTERS, 400),
        "scribbles": [_png(line_scribble(random)) for _ in range(200)],
        "two digits": [_png(_font_pair(random)) for _ in range(200)],
        "empty sheets": [_png(sheet) for sheet in empty],
    }


def _font_pair(random: np.random.Generator) -> Bytes:
    """Two digits of Pillow's own font that touch."""
    font = ImageFont.load_default(110)
    sheet = Image.new("L", (300, 300), 255)
    pen = ImageDraw.Draw(sheet)
    one, other = (str(digit) for digit in random.integers(0, 10, 2))
    right = pen.textbbox((60, 90), one, font=font)[2]
    pen.text((60, 90), one, fill=30, font=font)
    start = pen.textbbox((0, 90), other, font=font)[0]
    overlap = int(random.integers(2, 9))
    pen.text((right - start - overlap, 90), other, fill=30, font=font)
    return np.asarray(sheet)


def _png(image: Bytes) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()
