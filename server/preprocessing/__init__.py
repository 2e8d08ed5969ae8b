"""Turn a decoded picture into the uint8 input of a network, as the model's facts describe."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from server.errors import ModelNotReady
from server.preprocessing.digit import GREY_SIDE, prepare_digit
from server.preprocessing.jpeg import Detail
from server.preprocessing.photo import prepare_photo

# A photo is decoded at no less than this many times the size that the network sees, so that its
# pixels differ little from those of the whole: a PSNR above 50 dB (bench/pixels.py).
TIMES = 2
# Of a photo that is smaller, each pixel counts.
EXACT_BELOW = 1024


def detail(preprocessing: pb.Preprocessing, *, is_exact: bool) -> Detail | None:
    """What decode() may leave out, of photos only where it need not be exact; None: nothing."""
    kind = preprocessing.WhichOneof("kind")
    if kind == "digit":
        return Detail(is_grey=True, shorter=0, longer=GREY_SIDE)
    if kind == "photo" and not is_exact:
        return _detail_of_photo(preprocessing.photo)
    return None


def _detail_of_photo(photo: pb.Photo) -> Detail | None:
    if photo.interpolation in (pb.NEAREST, pb.AREA) or not _is_antialiased(photo):
        return None  # single pixels are picked out, or whole ones averaged
    side = TIMES * photo.resize
    is_padded = photo.resize_mode == pb.PAD
    shorter = max(0 if is_padded else side, EXACT_BELOW // 2)
    return Detail(is_grey=False, shorter=shorter, longer=side if is_padded else 0)


def _is_antialiased(photo: pb.Photo) -> bool:
    return photo.antialias or not photo.HasField("antialias")


def prepare(
    image: Image.Image,
    preprocessing: pb.Preprocessing,
    decoded_from: tuple[int, int] | None = None,
) -> npt.NDArray[np.uint8]:
    """The network's input, uint8, H×W×C.

    `decoded_from` is the width and height of the file's picture, where `image` has fewer pixels.

    Raises:
        ImageUnsuitable: the picture does not show what the model reads.
        ModelNotReady: the model was built for a newer gateway.
    """
    kind = preprocessing.WhichOneof("kind")
    if kind == "photo":
        return prepare_photo(image, preprocessing.photo, decoded_from)
    if kind == "digit":
        return prepare_digit(image, preprocessing.digit)
    raise ModelNotReady(
        "The model names no preprocessing that this gateway knows (photo, digit): "
        "update the gateway, or build the model again with export/build.py"
    )
