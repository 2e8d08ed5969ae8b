"""Addresses to listen on: HOST:PORT, or unix:/PATH of a socket."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from pathlib import Path

from server.errors import StartFailed

ANY_HOST = "::"
MAX_SOCKET_PATH = 107  # bytes, a limit of Linux
CONNECT_TIMEOUT_S = 1.0
PORT_REMEDIES = {
    errno.EADDRINUSE: "stop the program that listens there, or give a free port (0 picks one)",
    errno.EADDRNOTAVAIL: "give an address of this machine",
    errno.EACCES: "give a port from 1024 on, or allow this user to use lower ones",
    socket.EAI_NONAME: "give an address or a name of this machine",
}
SOCKET_REMEDIES = {
    errno.EADDRINUSE: "stop the program that listens there, or give another path",
    errno.EEXIST: "give another path; the file is left as it is",
    errno.ENOENT: "create its folder, or give another path",
    errno.ENOTDIR: "give a path below a folder",
    errno.ENAMETOOLONG: f"give a path of at most {MAX_SOCKET_PATH} bytes",
    errno.EACCES: "give a path in a folder that this user may write to",
}


def is_socket(address: str) -> bool:
    return address.startswith("unix:")


def listen(address: str, flag: str, *, shares_port: bool = False) -> socket.socket:
    """[::] accepts IPv4 too, as gRPC does. The workers of one gateway share their ports.

    Raises:
        StartFailed: nothing can listen there.
    """
    host, _, port = address.rpartition(":")
    try:
        if is_socket(address):
            return listen_on_socket(port)
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server(
            (host, int(port)),
            family=family,
            dualstack_ipv6=host == ANY_HOST,
            reuse_port=shares_port,
        )
        # Its connections inherit the option. Without it the second half of each answer waits 40 ms
        # for the client to acknowledge the first; asyncio sets it on its own sockets only.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        remedies = SOCKET_REMEDIES if is_socket(address) else PORT_REMEDIES
        remedy = remedies.get(error.errno or 0, "give another one")
        reason = error.strerror or error
        raise StartFailed(f"{flag} {address} is not available ({reason}): {remedy}") from error


def listen_on_socket(path: str) -> socket.socket:
    """Replaces the socket that a killed gateway leaves."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    remove_unused_socket(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def remove_unused_socket(path: str) -> None:
    """Removes a socket on which nobody listens.

    Raises:
        OSError: EEXIST if the file is no socket, EADDRINUSE if a program listens there.
    """
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise OSError(errno.EEXIST, "a file that is no socket is there")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(CONNECT_TIMEOUT_S)  # a listener that accepts nothing is one too
            with contextlib.suppress(TimeoutError):
                client.connect(path)
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    except ConnectionRefusedError:
        Path(path).unlink(missing_ok=True)
    except FileNotFoundError:
        pass


def is_local(address: str) -> bool:
    """Whether only this machine can reach it."""
    host = address.rpartition(":")[0].strip("[]")
    if is_socket(address) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
