"""Turn a decoded picture into the uint8 input of a network, as the model's facts describe."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from convoy.v1 import classifier_pb2 as pb
from server.errors import ModelNotReady
from server.preprocessing.digit import GREY_SIDE, prepare_digit
from server.preprocessing.photo import prepare_photo


def grey_side(preprocessing: pb.Preprocessing) -> int | None:
    """The `grey_side` that decode() may use: None where the network sees colours."""
    return GREY_SIDE if preprocessing.WhichOneof("kind") == "digit" else None


def prepare(image: Image.Image, preprocessing: pb.Preprocessing) -> npt.NDArray[np.uint8]:
    """The network's input, uint8, H×W×C.

    Raises:
        ImageUnsuitable: the picture does not show what the model reads.
        ModelNotReady: the model was built for a newer gateway.
    """
    kind = preprocessing.WhichOneof("kind")
    if kind == "photo":
        return prepare_photo(image, preprocessing.photo)
    if kind == "digit":
        return prepare_digit(image, preprocessing.digit)
    raise ModelNotReady(
        "The model names no preprocessing that this gateway knows (photo, digit): "
        "update the gateway, or build the model again with export/build.py"
    )
