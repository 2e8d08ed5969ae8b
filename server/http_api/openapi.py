"""The OpenAPI document: the committed one (`make protocol`), and what depends on this gateway."""

from __future__ import annotations

import base64
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convoy.v1 import classifier_pb2 as pb

Json = dict[str, Any]


@cache
def committed_text() -> str:
    return Path(__file__).with_name("openapi.json").read_text(encoding="utf-8")


def document(example: pb.Model | None, *, needs_key: bool) -> Json:
    """For clients of this gateway; `example` is a model that it serves, with its golden images."""
    filled: Json = json.loads(committed_text())
    filled["info"]["version"] = version("convoy-serving")
    if needs_key:
        filled["security"] = [{"bearer": []}]
    filled["components"]["examples"] = examples(example)
    if example:
        filled["components"]["parameters"]["model"]["example"] = example.name
    return filled


def examples(model: pb.Model | None) -> Json:
    """Requests that can be sent as they are: their picture is one of the model's golden images."""
    golden = model.golden_images[0].content if model and model.golden_images else b""
    image = {"content": base64.b64encode(golden).decode()}
    return {
        "ClassifyRequest": {"value": {"image": image, "top_k": 3}},
        "BatchClassifyRequest": {"value": {"requests": [{"image": image}, {"image": image}]}},
    }
