"""The listening socket that a service manager opened for us, as ``sd_listen_fds(3)`` has it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from twisted.logger import Logger
from twisted.python.systemd import ListenFDs

log = Logger(namespace="harn.listener")

COUNT, PID, NAMES = "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"
MOST = 1024
"""Sockets that anybody passes."""


def passed_descriptor(environ: MutableMapping[str, str]) -> int | None:
    """
    Return the descriptor of the first socket that was passed to this process, None when none was.

    To be asked before ``twisted.internet.endpoints`` is imported, which takes the variables (see `taken_by_twisted`).
    They are taken out of ``environ`` here, too: they are this process's alone.
    """
    found = {name: environ.pop(name) for name in (COUNT, PID, NAMES) if name in environ}
    text = found.get(COUNT, "")
    count = min(MOST, int(text)) if text.isascii() and text.isdecimal() else 0
    # Not every service manager names the sockets that it passes, and Twisted takes none without a name for each.
    found.update({COUNT: str(count), NAMES: ":".join(["unknown"] * count)})
    descriptors = ListenFDs.fromEnvironment(found).inheritedDescriptors()
    if not descriptors:
        return None
    if len(descriptors) > 1:
        log.warn(
            "{count} sockets were passed; only the first, descriptor {descriptor}, is served",
            count=len(descriptors),
            descriptor=descriptors[0],
        )
    return descriptors[0]


def taken_by_twisted(reactor: Any) -> int | None:
    """Return the first socket that was passed, after Twisted has taken the variables; None when none was."""
    # Here, since it takes them when it is imported.
    from twisted.internet.endpoints import serverFromString

    try:
        endpoint: Any = serverFromString(reactor, "systemd:domain=INET:index=0")
    except IndexError:
        return None
    descriptor: int = endpoint.fileno
    return descriptor
