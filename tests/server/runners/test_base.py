"""The facts of a version, as a build wrote them: what the gateway does not know is no guess."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2

from convoy.v1 import classifier_pb2 as pb
from server.runners.base import FACTS_KEY, LoadFailed, parse_facts


def config(facts: dict[str, Any]) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig()
    config.parameters[FACTS_KEY].string_value = json.dumps(facts)
    return config


def photo(**fields: Any) -> dict[str, Any]:
    return {"preprocessing": {"photo": {"resize": 256, "crop": 224, **fields}}}


def test_a_version_of_an_older_build_is_prepared_as_ever() -> None:
    facts = parse_facts(config(photo()))
    assert facts.preprocessing.photo == pb.Photo(resize=256, crop=224)
    assert facts.preprocessing.photo.interpolation == pb.BILINEAR
    assert facts.preprocessing.photo.resize_mode == pb.SHORTER
    assert not facts.preprocessing.photo.HasField("antialias")


def test_fields_of_a_newer_contract_are_ignored_where_they_change_no_pixel() -> None:
    facts = parse_facts(config({**photo(), "invented": 1, "manifest": {"invented": 2}}))
    assert facts.preprocessing.photo.crop == 224


@pytest.mark.parametrize("newer", [{"invented": 1}, {"interpolation": "MITCHELL"}])
def test_preprocessing_of_a_newer_contract_is_not_half_done(newer: dict[str, Any]) -> None:
    with pytest.raises(LoadFailed, match=r"preprocessing is not known here .*: update the gateway"):
        parse_facts(config(photo(**newer)))


@pytest.mark.parametrize(
    ("impossible", "reason"),
    [
        ({"interpolation": "LANCZOS", "antialias": False}, "LANCZOS without antialiasing"),
        ({"interpolation": "AREA", "antialias": False}, "AREA without antialiasing"),
        ({"fill": [0, 0]}, r"fills with \[0, 0\]"),
        ({"fill": [0, 0, 256]}, r"fills with \[0, 0, 256\]"),
        ({"resize": 5000}, "5000 pixels a side"),
    ],
)
def test_preprocessing_that_nobody_can_do_does_not_load(
    impossible: dict[str, Any], reason: str
) -> None:
    with pytest.raises(LoadFailed, match=reason):
        parse_facts(config(photo(**impossible)))
