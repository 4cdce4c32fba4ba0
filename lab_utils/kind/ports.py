"""Whether ports of this host are free, asked before anything is made."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from lab_utils.errors import BadInput
from lab_utils.kind.settings import LOOPBACK


def need_free(ports: Iterable[int]) -> None:
    if busy := [port for port in ports if is_busy(port)]:
        raise taken(busy[0])


def is_busy(port: int) -> bool:
    """Tried as Docker will do it. A port that this user may not open (below 1024) may still be one for Docker: that is no verdict."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a closed connection left behind keeps nobody out
        try:
            one.bind((LOOPBACK, port))
            one.listen()
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def taken(port: int) -> BadInput:
    return BadInput(f"--port asks for port {port} of this host, which another program has", "Choose another: --port HOST:NODE")
