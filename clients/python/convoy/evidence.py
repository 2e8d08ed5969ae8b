"""What a gateway shows besides classes, as arrays. It needs numpy: the extra `evidence`."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convoy.v1 import classifier_pb2 as pb

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Bytes = npt.NDArray[np.uint8]

# Left, top, right and bottom, in pixels of the upright image: as it is after the EXIF orientation.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SeenImage:
    """The network's input."""

    png: bytes
    box: Box | None  # the part of the image that it is; None for digits

    @property
    def pixels(self) -> Bytes:
        """H×W×C; reading them needs Pillow."""
        import numpy as np
        from PIL import Image

        with Image.open(io.BytesIO(self.png)) as picture:
            pixels = np.asarray(picture)
        return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


@dataclass(frozen=True)
class Heatmap:
    """Where the evidence for each of the best classes is, in the image or, for digits, in the
    network's input."""

    method: str  # "CLASS_ACTIVATION_MAP" or "OCCLUSION"
    passes: int  # images that went through the network for it
    maps: dict[int, Floats]  # by the index of the class, best first: h×w, 0 to 1
    box: Box | None  # the part of the image that they cover; None for digits


@dataclass(frozen=True)
class Unfamiliar:
    score: float  # the higher, the less the image looks like any class of the model
    threshold: float | None  # from here on, doubt the classes


def to_seen_image(message: pb.SeenImage) -> SeenImage:
    return SeenImage(message.png, to_box(message.box) if message.HasField("box") else None)


def to_heatmap(message: pb.Heatmap) -> Heatmap:
    import numpy as np

    shape = (message.height, message.width)
    return Heatmap(
        method=pb.HeatmapMethod.Name(message.method),
        passes=message.passes,
        maps={
            class_map.index: np.array(class_map.values, np.float32).reshape(shape)
            for class_map in message.maps
        },
        box=to_box(message.box) if message.HasField("box") else None,
    )


def to_box(message: pb.Box) -> Box:
    return (message.left, message.top, message.right, message.bottom)


def to_features(message: pb.Features) -> Floats:
    import numpy as np

    return np.array(message.values, np.float32)


def to_layers(message: pb.Layers) -> dict[str, Bytes]:
    """By name, in the order of the network: C×H×W."""
    import numpy as np

    return {
        layer.shape.name: np.frombuffer(layer.pixels, np.uint8).reshape(
            layer.shape.maps, layer.shape.height, layer.shape.width
        )
        for layer in message.layers
    }


def to_unfamiliar(message: pb.Unfamiliar) -> Unfamiliar:
    has_threshold = message.HasField("threshold")
    return Unfamiliar(message.score, message.threshold if has_threshold else None)
