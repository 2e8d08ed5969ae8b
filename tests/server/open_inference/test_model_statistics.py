"""Statistics count images and failures."""

from __future__ import annotations

from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from tests.server.open_inference.clients import (
    as_json,
    image_input,
)


def test_statistics_count_images_and_failures(client: Any, digit: bytes) -> None:
    def counted() -> dict[str, int]:
        statistics = client.get_inference_statistics("lenet5", "1", **as_json(client))
        (stats,) = statistics["model_stats"]
        inference = stats["inference_stats"]
        return {
            "images": int(stats.get("inference_count", 0)),
            "success": int(inference.get("success", {}).get("count", 0)),
            "fail": int(inference.get("fail", {}).get("count", 0)),
            "ns": int(inference.get("compute_input", {}).get("ns", 0)),
        }

    before = counted()
    client.infer("lenet5", image_input(client, digit, digit))
    with pytest.raises(InferenceServerException):
        client.infer("lenet5", image_input(client, b"no picture"))
    grown = {name: count - before[name] for name, count in counted().items()}
    assert grown.pop("ns") > 100_000, "preparing a digit takes milliseconds"
    assert grown == {"images": 2, "success": 1, "fail": 1}
    everything = client.get_inference_statistics(**as_json(client))
    assert [stats["name"] for stats in everything["model_stats"]] == ["lenet5"]
