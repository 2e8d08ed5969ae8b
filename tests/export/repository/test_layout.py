import hashlib
import json
import shutil
import signal
import subprocess
import sys
import textwrap
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
from export.console import PublishedVersion
from export.errors import RepositoryError
from export.repository.config import FACTS_KEY, max_batch_size, read_facts, write_config
from export.repository.layout import (
    highest_number,
    highest_published,
    lock_versions,
    version_numbers,
)
from export.repository.publishing import prune, staging

ROOT = Path(__file__).parents[3]

# ------------------------------------------------------------------------------ what a folder holds


@pytest.fixture
def config(built: PublishedVersion) -> ModelConfig:
    text = (built.folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, ModelConfig())


def test_config_is_what_triton_must_know(config: ModelConfig) -> None:
    assert (config.name, config.backend, config.max_batch_size) == ("", "onnxruntime", 8)
    (image,) = config.input
    assert (image.name, image.data_type, list(image.dims)) == ("image", TYPE_UINT8, [32, 32, 1])
    outputs = {output.name: (output.data_type, list(output.dims)) for output in config.output}
    assert outputs == {
        "probabilities": (TYPE_FP32, [10]),
        "batch_size": (TYPE_INT32, [1]),
        "features": (TYPE_FP32, [84]),
        "layer_C1": (TYPE_FP32, [6, 28, 28]),
        "layer_S2": (TYPE_FP32, [6, 14, 14]),
        "layer_C3": (TYPE_FP32, [16, 10, 10]),
        "layer_S4": (TYPE_FP32, [16, 5, 5]),
        "layer_C5": (TYPE_FP32, [120, 1, 1]),
        "layer_F6": (TYPE_FP32, [84, 1, 1]),
        "unfamiliar": (TYPE_FP32, [1]),
    }
    assert config.output[0].label_filename == "labels.txt"
    assert [group.count for group in config.instance_group] == [1]
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.ByteSize() == 0  # no preferred sizes, no delay, no queue policy


def test_facts_come_back_out_of_the_config(config: ModelConfig, built: PublishedVersion) -> None:
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


def test_labels_stand_one_a_line(built: PublishedVersion) -> None:
    text = (built.folder / "labels.txt").read_text()
    assert text == "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"
    assert built.model.manifest.labels_sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_what_was_written_can_be_read_again(tmp_path: Path) -> None:
    model = pb.Model(labels=[pb.Label(name="ant")], manifest=pb.Manifest(network="net"))
    write_config(tmp_path, model, 8)
    read = read_facts(tmp_path)
    assert read and (read.manifest, read.labels) == (model.manifest, model.labels)
    assert max_batch_size(tmp_path) == 8


def test_what_cannot_be_read_is_no_version_of_ours(tmp_path: Path) -> None:
    assert read_facts(tmp_path) is None
    (tmp_path / "config.pbtxt").write_text("max_batch_size: 8")
    assert read_facts(tmp_path) is None
    (tmp_path / "config.pbtxt").write_text("max_batch_size: many")
    assert read_facts(tmp_path) is None
    with pytest.raises(RepositoryError, match=r"config\.pbtxt cannot be read"):
        max_batch_size(tmp_path)


@pytest.mark.parametrize(
    ("format", "backend"), [("onnx", "onnxruntime"), ("plan", "tensorrt"), ("", "onnxruntime")]
)
def test_the_backend_is_that_of_the_format(tmp_path: Path, format: str, backend: str) -> None:
    write_config(tmp_path, pb.Model(manifest=pb.Manifest(format=format)), 8)
    config = text_format.Parse((tmp_path / "config.pbtxt").read_text(), ModelConfig())
    assert config.backend == backend


# ------------------------------------------------------------------------------ stage and publish


def publish(repository: Path, name: str, content: str = "", *, replace: bool = False) -> Path:
    with staging(repository, name, replace=replace) as staged:
        (staged.folder / "1" / "model.onnx").write_text(content)
        staged.publish()
    return staged.published


def content(version: Path) -> str:
    return (version / "1" / "model.onnx").read_text()


def folders(repository: Path) -> list[str]:
    return sorted(path.name for path in repository.iterdir() if path.is_dir())


def locks(repository: Path) -> list[str]:
    return sorted(path.name for path in repository.glob(".*.lock"))


def test_each_build_is_a_version_of_its_own(tmp_path: Path) -> None:
    assert highest_published(tmp_path / "nowhere", "net") is None
    assert [publish(tmp_path, "net").name for _ in range(2)] == ["net.v1", "net.v2"]
    assert folders(tmp_path) == ["net.v1", "net.v2"]
    assert locks(tmp_path) == [".net.lock"]
    assert highest_published(tmp_path, "net") == tmp_path / "net.v2"


def test_number_of_a_withdrawn_version_is_not_used_again(tmp_path: Path) -> None:
    for folder in ("net.v2", "net.v9.withdrawn", "net.v10.staging", "net2.v30", "my-net.v40"):
        (tmp_path / folder).mkdir()
    assert highest_published(tmp_path, "net") == tmp_path / "net.v2"
    assert publish(tmp_path, "net").name == "net.v10"  # what a killed build left was never served


def test_number_of_a_version_deleted_by_hand_is_not_used_again(tmp_path: Path) -> None:
    for _ in range(2):
        shutil.rmtree(publish(tmp_path, "net"))
    assert publish(tmp_path, "net").name == "net.v3"
    assert highest_number(tmp_path, "net") == 3


def test_a_late_build_of_a_lower_number_does_not_make_the_higher_one_forgotten(
    tmp_path: Path,
) -> None:
    with staging(tmp_path, "net") as first:
        shutil.rmtree(publish(tmp_path, "net"))
        first.publish()
    assert publish(tmp_path, "net").name == "net.v3"


def test_build_that_fails_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on the way"), staging(tmp_path, "net") as staged:
        (staged.folder / "1" / "model.onnx").write_text("half")
        raise ValueError("on the way")
    assert folders(tmp_path) == []
    assert publish(tmp_path, "net").name == "net.v1"


def test_published_version_is_never_overwritten(tmp_path: Path) -> None:
    with (
        pytest.raises(RepositoryError, match=r"net\.v1 exists already"),
        staging(tmp_path, "net") as staged,
    ):
        (tmp_path / "net.v1").mkdir()
        staged.publish()
    assert folders(tmp_path) == ["net.v1"]
    assert list((tmp_path / "net.v1").iterdir()) == []


# ------------------------------------------------------------------------------ several builds


def test_builds_at_once_get_a_number_each_and_do_not_mix(tmp_path: Path) -> None:
    with staging(tmp_path, "net") as first, staging(tmp_path, "net") as second:
        assert [first.published.name, second.published.name] == ["net.v1", "net.v2"]
        (first.folder / "1" / "model.onnx").write_text("first")
        (second.folder / "1" / "model.onnx").write_text("second")
        second.publish()
        assert version_numbers(tmp_path, "net") == [2]
        first.publish()
    assert [content(tmp_path / f"net.v{number}") for number in (1, 2)] == ["first", "second"]
    assert folders(tmp_path) == ["net.v1", "net.v2"]


def test_what_a_killed_build_left_is_cleared_and_others_are_not(tmp_path: Path) -> None:
    left = ("net.v2.staging", "net.v3.replaced", "net.v4.deleted", "other.v1.staging")
    for folder in (*left, "net.v1.withdrawn", "net.v3"):
        (tmp_path / folder / "1").mkdir(parents=True)
    (tmp_path / ".net.v2.lock").touch()
    (tmp_path / ".net.v5.lock").touch()  # killed before it had a folder
    publish(tmp_path, "net")
    assert folders(tmp_path) == ["net.v1.withdrawn", "net.v3", "net.v4", "other.v1.staging"]
    assert locks(tmp_path) == [".net.lock"]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from export.repository.publishing import staging
    with staging(Path(sys.argv[1]), "net") as staged:
        print(staged.folder.name, flush=True)
        sys.stdin.read()
"""


def test_a_build_at_work_is_left_alone_until_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True) as build:
        assert build.stdout and build.stdout.readline() == "net.v1.staging\n"
        assert publish(tmp_path, "net").name == "net.v2"
        assert folders(tmp_path) == ["net.v1.staging", "net.v2"]
        build.send_signal(signal.SIGKILL)
        build.wait()
    assert folders(tmp_path) == ["net.v1.staging", "net.v2"]
    assert publish(tmp_path, "net").name == "net.v3"
    assert folders(tmp_path) == ["net.v2", "net.v3"]


def test_a_lock_that_is_never_let_go_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.repository.layout.LOCK_TIMEOUT_S", 0.1)
    with (
        lock_versions(tmp_path, "net"),
        pytest.raises(RepositoryError, match=r"has held .*\.net\.lock for 0 s"),
        staging(tmp_path, "net"),
    ):
        pass
    assert folders(tmp_path) == []


# ------------------------------------------------------------------------------ replacing


def test_replacing_rebuilds_the_highest_version(tmp_path: Path) -> None:
    assert publish(tmp_path, "net", "first", replace=True).name == "net.v1"
    publish(tmp_path, "net", "second")
    (tmp_path / "net.v3.withdrawn").mkdir()
    replaced = publish(tmp_path, "net", "third", replace=True)
    assert folders(tmp_path) == ["net.v1", "net.v2", "net.v3.withdrawn"]
    assert (content(replaced), content(tmp_path / "net.v1")) == ("third", "first")


def test_of_two_that_replace_the_second_is_refused_and_disturbs_nothing(tmp_path: Path) -> None:
    publish(tmp_path, "net", "old")
    with staging(tmp_path, "net", replace=True) as staged:
        (staged.folder / "1" / "model.onnx").write_text("new")
        with pytest.raises(RepositoryError, match=r"Another build of net\.v1 is running"):
            publish(tmp_path, "net", replace=True)
        staged.publish()
    assert content(tmp_path / "net.v1") == "new"
    assert publish(tmp_path, "net", "newer", replace=True) == tmp_path / "net.v1"


def test_a_build_killed_between_the_two_renames_of_replacing_loses_nothing(tmp_path: Path) -> None:
    publish(tmp_path, "net", "old").rename(tmp_path / "net.v1.replaced")
    shutil.copytree(tmp_path / "net.v1.replaced", tmp_path / "net.v1.staging")
    publish(tmp_path, "net", "next")
    assert folders(tmp_path) == ["net.v1", "net.v2"]
    assert content(tmp_path / "net.v1") == "old"


# ------------------------------------------------------------------------------ pruning


def made(repository: Path, *names: str) -> None:
    for name in names:
        (repository / name / "1").mkdir(parents=True)


def test_pruning_keeps_the_highest_published_versions(tmp_path: Path) -> None:
    made(tmp_path, "net.v1", "net.v2.withdrawn", "net.v3", "net.v9.withdrawn", "net.v10", "net.v4")
    made(tmp_path, "other.v1", "net.v12.withdrawn")
    assert prune(tmp_path, "net", 2) == ["net.v1", "net.v2.withdrawn", "net.v3"]
    left = ["net.v10", "net.v12.withdrawn", "net.v4", "net.v9.withdrawn", "other.v1"]
    assert folders(tmp_path) == left
    assert prune(tmp_path, "net", 2) == []


def test_pruning_deletes_nothing_while_there_are_no_more_than_that(tmp_path: Path) -> None:
    made(tmp_path, "net.v1.withdrawn", "net.v2", "net.v3")
    assert prune(tmp_path, "net", 3) == []
    assert prune(tmp_path, "nothing", 3) == []


def test_at_least_two_versions_stay(tmp_path: Path) -> None:
    made(tmp_path, "net.v1", "net.v2")
    with pytest.raises(RepositoryError, match="got 1"):
        prune(tmp_path, "net", 1)
    assert folders(tmp_path) == ["net.v1", "net.v2"]


def test_pruning_that_is_stopped_half_way_leaves_no_half_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "net.v1", "net.v2", "net.v3", "net.v4")

    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("shutil.rmtree", stop)
        prune(tmp_path, "net", 2)
    assert folders(tmp_path) == ["net.v1.deleted", "net.v2", "net.v3", "net.v4"]
    assert prune(tmp_path, "net", 2) == ["net.v2"]
    assert folders(tmp_path) == ["net.v3", "net.v4"]


# ------------------------------------------------------------------------------ disks


def test_repository_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match=r"Cannot write .*Not a directory.*--repository"):
        publish(tmp_path / "file" / "models", "net")


def test_an_error_of_the_build_itself_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staging(tmp_path, "net"):
        (tmp_path / "no such weights.pth").read_bytes()


def in_a_process(code: str, repository: Path) -> str:
    """What a process with limits or rights of its own writes to standard error."""
    command = [sys.executable, "-c", textwrap.dedent(code), str(repository)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stderr


FULL = """
    import resource, sys
    from pathlib import Path
    from convoy.v1 import classifier_pb2 as pb
    from export.errors import RepositoryError
    from export.repository.config import write_config
    from export.repository.publishing import staging
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        with staging(Path(sys.argv[1]), "net") as staged:
            labels = [pb.Label(name="a" * 2000)]
            model = pb.Model(labels=labels, manifest=pb.Manifest(network="net"))
            write_config(staged.folder, model, 8)
            staged.publish()
    except RepositoryError as error:
        sys.exit(str(error))
"""


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit of the process takes the disk's place: the error comes from the same call."""
    output = in_a_process(FULL, tmp_path)
    assert "net.v1.staging" in output and "File too large" in output and "\n" not in output.strip()
    assert folders(tmp_path) == []
    assert publish(tmp_path, "net").name == "net.v1"


READ_ONLY = """
    import os, sys
    from pathlib import Path
    from export.errors import RepositoryError
    from export.repository.publishing import prune, staging
    os.chdir(sys.argv[1])
    if os.getuid() == 0:  # whom no mode stops
        os.setuid(65534)
    for use in (lambda: staging(Path(), "net").__enter__(), lambda: prune(Path(), "net", 2)):
        try:
            use()
        except RepositoryError as error:
            print(error, file=sys.stderr)
"""


def test_a_read_only_repository_is_one_sentence(tmp_path: Path) -> None:
    made(tmp_path, "net.v1", "net.v2", "net.v3")
    tmp_path.chmod(0o555)
    told = in_a_process(READ_ONLY, tmp_path)
    tmp_path.chmod(0o755)
    assert told.count("Cannot write to the model repository") == told.count("\n") == 2, told
    assert told.count("Permission denied") == 2
    assert folders(tmp_path) == ["net.v1", "net.v2", "net.v3"]
    assert locks(tmp_path) == []
