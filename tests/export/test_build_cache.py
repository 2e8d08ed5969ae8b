import os
import threading
import time
from pathlib import Path

import pytest

from convoy.v1 import classifier_pb2 as pb
from export import build_cache
from export.build_cache import Stages
from export.errors import ParityError


class Maker:
    """Counts how often it was asked to make its file."""

    def __init__(self, content: bytes = b"graph") -> None:
        self.content, self.times = content, 0

    def __call__(self, path: Path) -> pb.Model:
        self.times += 1
        path.write_bytes(self.content)
        return pb.Model(manifest=pb.Manifest(precision="fp16"))


def test_a_stage_is_made_once(tmp_path: Path) -> None:
    make = Maker()
    first = Stages(tmp_path).get_or_make("key", make)
    second = Stages(tmp_path).get_or_make("key", make)
    assert make.times == 1
    assert first == second
    assert second.path.read_bytes() == b"graph"
    assert second.facts.manifest.precision == "fp16"


def test_another_key_is_another_stage(tmp_path: Path) -> None:
    make = Maker()
    assert (
        Stages(tmp_path).get_or_make("a", make).path != Stages(tmp_path).get_or_make("b", make).path
    )
    assert make.times == 2


def test_anew_makes_it_again_for_later_builds_too(tmp_path: Path) -> None:
    Stages(tmp_path).get_or_make("key", Maker(b"old"))
    Stages(tmp_path, rebuild=True).get_or_make("key", Maker(b"new"))
    assert Stages(tmp_path).get_or_make("key", Maker(b"later")).path.read_bytes() == b"new"


def test_a_file_that_changed_on_the_disk_is_made_again(tmp_path: Path) -> None:
    stage = Stages(tmp_path).get_or_make("key", Maker())
    stage.path.write_bytes(b"damaged")
    assert Stages(tmp_path).get_or_make("key", Maker()).path.read_bytes() == b"graph"


def test_a_stage_that_fails_is_not_kept(tmp_path: Path) -> None:
    def fail(path: Path) -> pb.Model:
        path.write_bytes(b"half")
        raise ParityError("no")

    with pytest.raises(ParityError):
        Stages(tmp_path).get_or_make("key", fail)
    assert list(tmp_path.iterdir()) == []


def test_two_builds_at_once_do_not_mix(tmp_path: Path) -> None:
    both_began = threading.Barrier(2)

    def make(path: Path) -> pb.Model:
        both_began.wait(10)
        return Maker(bytes(100_000))(path)

    made = []
    threads = [
        threading.Thread(target=lambda: made.append(Stages(tmp_path).get_or_make("key", make)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2 and made[0].path.read_bytes() == bytes(100_000)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_the_least_recently_used_leave_a_full_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_cache, "MAX_CACHE_BYTES", 1000)
    for name in ("a", "b"):
        Stages(tmp_path).get_or_make(name, Maker(bytes(300)))
    hour_ago_s = time.time() - 3600
    os.utime(tmp_path / "b", (hour_ago_s, hour_ago_s))
    Stages(tmp_path).get_or_make("a", Maker())
    Stages(tmp_path).get_or_make("c", Maker(bytes(300)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_what_a_killed_build_left_leaves_after_a_day(tmp_path: Path) -> None:
    for name, age_s in (("making-old", 90_000), ("making-now", 60)):
        (tmp_path / name).mkdir()
        then_s = time.time() - age_s
        os.utime(tmp_path / name, (then_s, then_s))
    Stages(tmp_path).get_or_make("key", Maker())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "making-now"]
