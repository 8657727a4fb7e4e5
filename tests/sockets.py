"""Sockets in deep folders, whose paths are longer than the 107 characters that a socket's may have."""

from __future__ import annotations

import os
import socket


def bind_in(directory: str | os.PathLike[str], name: str, sock: socket.socket) -> None:
    """Bind ``sock`` to a file of ``directory``, through the directory's descriptor: the working directory stays."""
    here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sock.bind(f"/proc/self/fd/{here}/{name}")
    finally:
        os.close(here)
