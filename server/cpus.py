"""How many CPUs this process may use: those of its affinity, within its cgroups' limits.

A container's limit is a quota of CPU time. The processes in it still see all CPUs of the host, and
with a thread for each of them they would be throttled most of the time.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def available_cpus(root: Path = ROOT) -> int:
    """At least 1; a quota of 1.5 CPUs counts as 2, as in Java and Go."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limits = [math.ceil(quota) for quota in quotas(root) if quota != math.inf]
    return max(1, min([affinity or 1, *limits]))


def quotas(root: Path) -> Iterator[float]:
    """In CPUs, of each cgroup of this process that has one, from its own up to the root."""
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield from map(quota_v2, levels(root / "sys/fs/cgroup", group))
        elif "cpu" in controllers.split(","):
            yield from map(quota_v1, levels(root / "sys/fs/cgroup/cpu", group))


def levels(mount: Path, group: str) -> Iterator[Path]:
    """A container may see only its own cgroup, as the root of the mount."""
    path = mount / group.lstrip("/")
    yield from (folder for folder in (path, *path.parents) if folder.is_relative_to(mount))


def quota_v2(folder: Path) -> float:
    quota, _, period = read(folder / "cpu.max").partition(" ")
    return to_cpus(quota, period)


def quota_v1(folder: Path) -> float:
    return to_cpus(read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us"))


def to_cpus(quota: str, period: str) -> float:
    """Both in microseconds; without a limit the quota is "max" in v2, -1 in v1."""
    if not quota.strip().isdecimal() or not period.strip().isdecimal():
        return math.inf
    return int(quota) / max(1, int(period))


def read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
