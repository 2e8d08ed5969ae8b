"""Where a door listens: HOST:PORT, or unix:/PATH of a socket."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from pathlib import Path

from server.errors import StartFailed


def is_socket(address: str) -> bool:
    return address.startswith("unix:")


def listen(address: str, flag: str) -> socket.socket:
    """
    Raises:
        StartFailed: most likely because another program listens there.
    """
    host, _, port = address.rpartition(":")
    try:
        if is_socket(address):
            return listen_on_socket(port)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        door = socket.create_server((host.strip("[]"), int(port)), family=family)
        # Its connections inherit it. Else the second half of each answer waits for the client to
        # acknowledge the first, 40 ms; asyncio sees to it for sockets of its own alone.
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return door
    except OSError as error:
        raise StartFailed(
            f"{flag} {address} cannot be listened on ({error.strerror}): stop the program that "
            "does, or give a free port (0 takes any)"
        ) from error


def remove_socket(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def listen_on_socket(path: str) -> socket.socket:
    """A gateway that was killed leaves its socket's file, which nobody answers any more."""
    taken = socket.socket(socket.AF_UNIX)
    with taken, contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
        taken.connect(path)
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    remove_socket(path)
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen()
    return door


def is_local(address: str) -> bool:
    """Whether only this machine can reach it."""
    host = address.rpartition(":")[0].strip("[]")
    if is_socket(address) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
