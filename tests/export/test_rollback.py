import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from export.repository.config import labels_text, read_facts
from export.repository.layout import highest_number, lock_versions
from export.repository.publishing import staging
from export.rollback import remove, restore, rollback

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for folder in ("net.v1", "net.v2", "net.v10", "other.v1"):
        (tmp_path / "models" / folder / "1").mkdir(parents=True)
    return tmp_path / "models"


app = typer.Typer()
app.command()(rollback)
app.command()(restore)
app.command()(remove)


def done(repository: Path, *words: str) -> str:
    ended = CliRunner().invoke(app, [*words, f"--repository={repository}"])
    assert (ended.exit_code, ended.stderr) == (0, "")
    return ended.stdout


def refused(repository: Path, *words: str) -> str:
    ended = CliRunner().invoke(app, [*words, f"--repository={repository}"])
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def folders(repository: Path) -> set[str]:
    return {path.name for path in repository.iterdir() if path.is_dir()}


def test_a_roll_back_withdraws_the_highest_by_number(repository: Path) -> None:
    output = done(repository, "rollback", "net")
    assert "net.v10 is withdrawn, and net.v2 is now the highest version" in output
    assert "convoy restore net.v10" in output
    assert folders(repository) == {"net.v1", "net.v2", "net.v10.withdrawn", "other.v1"}


def test_the_last_version_is_not_withdrawn(repository: Path) -> None:
    done(repository, "rollback", "net")
    assert "net.v2 is withdrawn, and net.v1" in done(repository, "rollback", "net")
    assert "net.v1 is the only version of net" in refused(repository, "rollback", "net")
    assert "other.v1 is the only version" in refused(repository, "rollback", "other")
    assert folders(repository) == {"net.v1", "net.v2.withdrawn", "net.v10.withdrawn", "other.v1"}


def test_what_was_withdrawn_comes_back_unchanged(repository: Path) -> None:
    (repository / "net.v10" / "labels.txt").write_text("ant\n")
    done(repository, "rollback", "net")
    output = done(repository, "restore", "net.v10")
    assert "net.v10 is restored, and net.v10 is the highest" in output
    assert (repository / "net.v10" / "labels.txt").read_text() == "ant\n"


def test_a_lower_version_comes_back_below_the_highest(repository: Path) -> None:
    (repository / "net.v2").rename(repository / "net.v2.withdrawn")
    output = done(repository, "restore", "net.v2.withdrawn")  # as a shell completes it
    assert "net.v2 is restored, and net.v10 is the highest" in output


def test_a_model_is_removed_as_a_whole(repository: Path) -> None:
    done(repository, "rollback", "net")
    (repository / "net.v10").mkdir()  # beside net.v10.withdrawn
    output = done(repository, "remove", "net", "--yes")
    assert output.startswith("net.v1, net.v2, net.v10, net.v10.withdrawn: deleted.")
    assert folders(repository) == {"other.v1"}
    assert highest_number(repository, "net") == 10, "a later build is net.v11"
    assert "has no model 'net'" in refused(repository, "remove", "net", "--yes")


def test_a_removal_is_confirmed(repository: Path) -> None:
    before = folders(repository)
    words = ["remove", "net", f"--repository={repository}"]
    for answer in ("n\n", ""):
        ended = CliRunner().invoke(app, words, input=answer)
        assert ended.exit_code == 1
        assert "Delete net.v1, net.v2, net.v10 in" in ended.output
        assert folders(repository) == before
    assert CliRunner().invoke(app, words, input="y\n").exit_code == 0
    assert folders(repository) == {"other.v1"}


def test_what_is_being_built_is_not_removed(repository: Path) -> None:
    before = folders(repository)
    with staging(repository, "net"):
        assert "net.v11 is being built in" in refused(repository, "remove", "net", "--yes")
    assert folders(repository) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("rollback", "nett"), "has no model 'nett'; nearest: net"),
        (("remove", "nett", "--yes"), "has no model 'nett'; nearest: net"),
        (("remove", "../net", "--yes"), "has no model '../net'"),
        (("rollback", "zzz"), "there are: net, other"),
        (("restore", "nett.v1"), "has no model 'nett'; nearest: net"),
        (("restore", "net"), "'net' is not a version: name one as NAME.vN"),
        (("restore", "../net.v1"), "is not a version"),
        (("restore", "net.v1.staging"), "is not a version"),
        (("restore", "net.v2"), "net.v2 is not withdrawn, it is published"),
        (("restore", "net.v7"), "There is no net.v7 in"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    repository: Path, words: tuple[str, ...], told: str
) -> None:
    before = sorted(repository.rglob("*"))
    assert told in refused(repository, *words)
    after = [path for path in sorted(repository.rglob("*")) if path.name != ".net.lock"]
    assert after == before


def test_all_withdrawn_is_said_and_restored_from(repository: Path) -> None:
    for number in (1, 2, 10):
        (repository / f"net.v{number}").rename(repository / f"net.v{number}.withdrawn")
    assert "All versions of net" in refused(repository, "rollback", "net")
    assert "withdrawn: net.v1, net.v2, net.v10" in refused(repository, "restore", "net.v3")
    assert "net.v1 is the highest" in done(repository, "restore", "net.v1")


def test_two_folders_of_one_version_are_not_put_over_each_other(repository: Path) -> None:
    (repository / "net.v10.withdrawn").mkdir()
    assert "net.v10.withdrawn exists already" in refused(repository, "rollback", "net")
    assert "net.v10" in folders(repository)


def test_a_repository_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert "There is no model repository" in refused(nowhere, "rollback", "net")
    assert "There is no model repository" in refused(nowhere, "restore", "net.v1")
    assert not nowhere.exists()


def test_the_repository_of_the_environment_is_taken(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOY_REPOSITORY", str(repository))
    assert CliRunner().invoke(app, ["rollback", "net"]).exit_code == 0
    assert "net.v10.withdrawn" in folders(repository)


def test_a_roll_back_waits_for_who_is_renaming(repository: Path) -> None:
    command = [sys.executable, "-m", "convoy.cli", "rollback", "net", f"--repository={repository}"]
    with lock_versions(repository, "net"):
        waiting = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.5)
        (repository / "net.v11").mkdir()
    told, _ = waiting.communicate(timeout=30)
    assert "net.v11 is withdrawn, and net.v10 is now the highest" in told


def test_both_commands_need_only_what_serving_installs(repository: Path) -> None:
    code = f"""
import sys
for name in ("torch", "onnx", "onnxscript", "safetensors", "sklearn", "skimage"):
    sys.modules[name] = None  # an import fails
from pathlib import Path
from export.repository.withdrawal import restore, withdraw
print(*withdraw(Path({str(repository)!r}), "net"), *restore(Path({str(repository)!r}), "net.v10"))
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert told.stdout.split() == [b"net.v10", b"net.v2", b"net.v10", b"net.v10"]


# ------------------------------------------------------------------------------ two real builds


def test_two_builds_of_one_name_at_once_get_two_numbers_and_do_not_mix(tmp_path: Path) -> None:
    """Of different weights, so that whatever one took from the other would show."""
    command = [sys.executable, "export/build.py", "lenet5", "--weights", "random"]
    builds = [
        subprocess.Popen(
            [*command, f"--seed={seed}", f"--repository={tmp_path}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in (0, 1)  # whose stages other tests share
    ]
    said = [build.communicate(timeout=300)[0] for build in builds]
    assert [build.returncode for build in builds] == [0, 0], said
    assert folders(tmp_path) == {"lenet5.v1", "lenet5.v2"}
    seeds = set()
    for folder in (tmp_path / "lenet5.v1", tmp_path / "lenet5.v2"):
        model = read_facts(folder)
        assert model and model.golden_images
        content = (folder / "1" / "model.onnx").read_bytes()
        assert hashlib.sha256(content).hexdigest() == model.manifest.onnx_sha256
        assert (folder / "labels.txt").read_text() == labels_text(model.labels)
        seeds |= set(re.findall(r"--seed (\d)", model.manifest.build_command))
    assert seeds == {"0", "1"}
