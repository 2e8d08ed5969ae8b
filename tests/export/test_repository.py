import hashlib
import json
from pathlib import Path

import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import (
    TYPE_FP32,
    TYPE_INT32,
    TYPE_UINT8,
    ModelConfig,
)

from convoy.v1 import classifier_pb2 as pb
from export.build import Published
from export.errors import RepositoryError
from export.repository import FACTS_KEY, highest_version, staging

# ------------------------------------------------------------------------------ what a folder holds


@pytest.fixture
def config(built: Published) -> ModelConfig:
    text = (built.folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, ModelConfig())


def test_config_is_what_triton_must_know(config: ModelConfig) -> None:
    assert (config.name, config.backend, config.max_batch_size) == ("", "onnxruntime", 8)
    (image,) = config.input
    assert (image.name, image.data_type, list(image.dims)) == ("image", TYPE_UINT8, [32, 32, 1])
    outputs = {output.name: (output.data_type, list(output.dims)) for output in config.output}
    assert outputs == {"probabilities": (TYPE_FP32, [10]), "batch_size": (TYPE_INT32, [1])}
    assert config.output[0].label_filename == "labels.txt"
    assert [group.count for group in config.instance_group] == [1]
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.ByteSize() == 0  # no preferred sizes, no delay, no queue policy


def test_facts_come_back_out_of_the_config(config: ModelConfig, built: Published) -> None:
    text = config.parameters[FACTS_KEY].string_value
    read = json_format.Parse(text, pb.Model())
    assert read.manifest == built.model.manifest
    assert read.golden_images == built.model.golden_images
    assert (read.name, read.version, read.state) == ("", "", pb.STATE_UNSPECIFIED)
    assert "golden_images" in json.loads(text)  # snake_case


def test_same_facts_are_the_same_text(config: ModelConfig) -> None:
    text = config.parameters[FACTS_KEY].string_value
    assert text == json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)


def test_digest_is_that_of_the_manifest_as_it_stands(config: ModelConfig) -> None:
    facts = json.loads(config.parameters[FACTS_KEY].string_value)
    text = json.dumps(facts["manifest"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert facts["manifest_digest"] == hashlib.sha256(text.encode()).hexdigest()


def test_labels_stand_one_a_line(built: Published) -> None:
    text = (built.folder / "labels.txt").read_text()
    assert text == "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"
    assert built.model.manifest.labels_sha256 == hashlib.sha256(text.encode()).hexdigest()


# ------------------------------------------------------------------------------ stage and publish


def publish(repository: Path, name: str, content: str = "", *, replace: bool = False) -> Path:
    with staging(repository, name, replace=replace) as staged:
        staged.model_path.write_text(content)
        staged.publish()
    return staged.published


def folders(repository: Path) -> list[str]:
    return sorted(path.name for path in repository.iterdir() if path.is_dir())


def test_each_build_is_a_version_of_its_own(tmp_path: Path) -> None:
    assert [publish(tmp_path, "net").name for _ in range(2)] == ["net.v1", "net.v2"]
    assert folders(tmp_path) == ["net.v1", "net.v2"]


def test_number_of_a_withdrawn_version_is_not_used_again(tmp_path: Path) -> None:
    for folder in ("net.v2", "net.v9.withdrawn", "net.v10.staging", "net2.v30", "my-net.v40"):
        (tmp_path / folder).mkdir()
    assert highest_version(tmp_path, "net") == 9
    assert publish(tmp_path, "net").name == "net.v10"


def test_build_that_fails_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on the way"), staging(tmp_path, "net") as staged:
        staged.model_path.write_text("half")
        raise ValueError("on the way")
    assert folders(tmp_path) == []


def test_what_a_killed_build_left_is_cleared_and_others_are_not(tmp_path: Path) -> None:
    for folder in ("net.v2.staging", "net.v3.replaced", "other.v1.staging", "net.v1.withdrawn"):
        (tmp_path / folder / "1").mkdir(parents=True)
    publish(tmp_path, "net")
    assert folders(tmp_path) == ["net.v1.withdrawn", "net.v2", "other.v1.staging"]


def test_second_build_at_once_is_refused_and_disturbs_nothing(tmp_path: Path) -> None:
    with staging(tmp_path, "net") as staged:
        with pytest.raises(RepositoryError, match="Another build of net"):
            publish(tmp_path, "net")
        publish(tmp_path, "other")
        staged.model_path.write_text("whole")
        staged.publish()
    assert (tmp_path / "net.v1" / "1" / "model.onnx").read_text() == "whole"


def test_replacing_rebuilds_the_highest_version(tmp_path: Path) -> None:
    assert publish(tmp_path, "net", "first", replace=True).name == "net.v1"
    publish(tmp_path, "net", "second")
    replaced = publish(tmp_path, "net", "third", replace=True)
    assert folders(tmp_path) == ["net.v1", "net.v2"]
    assert (replaced / "1" / "model.onnx").read_text() == "third"
    assert (tmp_path / "net.v1" / "1" / "model.onnx").read_text() == "first"


def test_published_version_is_never_overwritten(tmp_path: Path) -> None:
    with (
        pytest.raises(RepositoryError, match="Cannot write"),
        staging(tmp_path, "net") as staged,
    ):
        (tmp_path / "net.v1" / "1").mkdir(parents=True)
        staged.publish()
    assert folders(tmp_path) == ["net.v1"]


def test_repository_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match=r"Cannot write .*--repository"):
        publish(tmp_path / "file" / "models", "net")
