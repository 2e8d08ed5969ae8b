"""How many CPUs the process may use, by affinity and by limits of both versions of cgroups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.cpus import available_cpus

CPUS = len(os.sched_getaffinity(0))
# What the kernel shows in containers and on hosts.
V2 = {"proc/self/cgroup": "0::/pods/one\n"}
V1 = {"proc/self/cgroup": "5:cpu,cpuacct:/docker/0123\n4:memory:/docker/0123\n0::/x\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, CPUS),
        (V2, CPUS),
        (V2 | {"sys/fs/cgroup/pods/one/cpu.max": "max 100000\n"}, CPUS),
        (V2 | {"sys/fs/cgroup/pods/one/cpu.max": "50000 100000\n"}, 1),
        (V2 | {"sys/fs/cgroup/pods/cpu.max": "100000 100000\n"}, 1),
        (V2 | {"sys/fs/cgroup/pods/one/cpu.max": "100001 100000\n"}, min(2, CPUS)),
        (V2 | {"sys/fs/cgroup/pods/one/cpu.max": "99900000 100000\n"}, CPUS),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        (V1, CPUS),
        (
            V1
            | {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            V1
            | {
                "sys/fs/cgroup/cpu/docker/0123/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/docker/0123/cpu.cfs_period_us": "100000\n",
            },
            CPUS,
        ),
    ],
)
def test_the_limit_of_a_cgroup_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_cpus(tmp_path) == expected


def test_the_settings_follow_the_affinity() -> None:
    code = """\
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from server.settings import Settings
print(Settings().decode_threads, Settings().inference_threads)
"""
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=True, capture_output=True).stdout.split() == [b"1", b"1"]
