"""TCP ports that one supervisor reserves for its workers."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from dataclasses import dataclass

from server.errors import StartFailed
from server.network.addresses import ANY_HOST, PORT_REMEDIES, listen


@dataclass(frozen=True)
class ReservedPort:
    """Held until it is closed, or its process ends, however it ends."""

    address: str  # HOST:PORT, with the port that was picked for port 0
    _sockets: tuple[socket.socket, ...]

    def close(self) -> None:
        for held in self._sockets:
            held.close()


def reserve_port(address: str, flag: str) -> ReservedPort:
    """
    Raises:
        StartFailed: a program listens there, or another supervisor has reserved it.
    """
    with contextlib.closing(listen(address, flag)) as probe:
        port = probe.getsockname()[1]
    host = address.rpartition(":")[0]
    concrete = f"{host}:{port}"
    try:
        return ReservedPort(concrete, (lock(concrete), bind(host.strip("[]"), port)))
    except OSError as error:
        remedy = PORT_REMEDIES.get(error.errno or 0, "give another one")
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StartFailed(f"{flag} {concrete} is not available ({reason}): {remedy}") from error


def lock(address: str) -> socket.socket:
    """A name that one process of this network has, like the port: Linux would let every process of
    the same user share a port that is meant for sharing.

    Raises:
        OSError: EADDRINUSE, another one has it.
    """
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0convoy-supervisor-{address}".encode())
    except OSError:
        name.close()
        raise
    return name


def bind(host: str, port: int) -> socket.socket:
    """Keeps the port from being picked for another program; it accepts nothing itself."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family)
    try:
        if host == ANY_HOST:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        held.close()
        if error.errno is None:
            raise OSError(errno.EADDRNOTAVAIL, str(error)) from error
        raise
    return held
