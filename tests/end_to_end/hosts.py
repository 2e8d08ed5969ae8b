"""Separate machines for servers: network namespaces, each with a virtual cable to this one.

Where namespaces are not allowed (they need root and `ip`), a machine is an address of the loopback
network, without a cable.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    address: str
    namespace: str = ""  # empty on the loopback network

    @property
    def enter(self) -> list[str]:
        """Returns the prefix of a command that runs on this host."""
        command = [shutil.which("nsenter") or "", f"--net=/run/netns/{self.namespace}"]
        return command if self.namespace else []

    @contextlib.contextmanager
    def unplugged(self) -> Iterator[None]:
        """Pulls the cable: packets are lost without an error until the block ends."""
        ip("-netns", self.namespace, "link", "set", "cable", "down")
        try:
            yield
        finally:
            ip("-netns", self.namespace, "link", "set", "cable", "up")


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    if not namespaces_are_allowed():
        yield [Host(f"127.0.0.{2 + number}") for number in range(count)]
        return
    with contextlib.ExitStack() as running:
        yield [running.enter_context(host(number)) for number in range(count)]


def namespaces_are_allowed() -> bool:
    if not shutil.which("ip") or not shutil.which("nsenter"):
        return False
    try:
        with host(9):
            return True
    except subprocess.CalledProcessError:
        return False


@contextlib.contextmanager
def host(number: int) -> Iterator[Host]:
    """Creates a host in 198.18.0.0/15, which RFC 2544 reserves for network tests."""
    namespace, cable = f"convoy-{os.getpid()}-{number}", f"cv{os.getpid()}-{number}"
    net = f"198.{18 + os.getpid() % 2}.{os.getpid() // 2 % 256}.%d/30"
    here, there = 4 * number + 1, 4 * number + 2
    ip("netns", "add", namespace)
    try:
        end = ("peer", "name", "cable", "netns", namespace)
        ip("link", "add", cable, "type", "veth", *end)
        ip("address", "add", net % here, "dev", cable)
        ip("link", "set", cable, "up")
        ip("-netns", namespace, "address", "add", net % there, "dev", "cable")
        ip("-netns", namespace, "link", "set", "cable", "up")
        ip("-netns", namespace, "link", "set", "lo", "up")
        yield Host((net % there).removesuffix("/30"), namespace)
    finally:
        ip("netns", "del", namespace)  # and the cable with it


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
