"""Addresses to listen on: HOST:PORT, or unix:/PATH of a socket."""

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
        StartFailed: most likely another program listens there.
    """
    host, _, port = address.rpartition(":")
    try:
        if is_socket(address):
            return listen_on_socket(port)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host.strip("[]"), int(port)), family=family)
        # Its connections inherit the option. Without it the second half of each answer waits 40 ms
        # for the client to acknowledge the first; asyncio sets it on its own sockets only.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise StartFailed(
            f"{flag} {address} is not available ({error.strerror}): stop the program that "
            "listens there, or give a free port (0 picks one)"
        ) from error


def remove_socket(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def listen_on_socket(path: str) -> socket.socket:
    """Replaces the file that the socket of a killed gateway leaves, on which nobody listens."""
    taken = socket.socket(socket.AF_UNIX)
    with taken, contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
        taken.connect(path)
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    remove_socket(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def is_local(address: str) -> bool:
    """Whether only this machine can reach it."""
    host = address.rpartition(":")[0].strip("[]")
    if is_socket(address) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
