"""Where the listener listens: an address and its URL, and the port opened there."""

from __future__ import annotations

import errno
from typing import Any

from attrs import frozen
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from harn.errors import ListenerUnusable
from harn.listener.tls import TlsContext

BACKLOG = 1024


@frozen
class Bind:
    """
    An address to listen on.

    :ivar host: an IP address, or a name; empty and ``0.0.0.0`` for every address of IPv4, ``::`` for all.
    :ivar port: 0 for any that is free.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def url(self, *, tls: bool) -> str:
        """Give the URL by which this machine reaches it: a wildcard is written as loopback."""
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"{'https' if tls else 'http'}://{Bind(host, self.port)}"


@frozen
class Listening:
    """An open port, and where it really is."""

    port: IListeningPort
    bind: Bind
    url: str


def listen(reactor: Any, bind: Bind, factory: IProtocolFactory, tls: TlsContext | None = None) -> Listening:
    """
    Open the port.

    :param reactor: an ``IReactorTCP``.
    :param tls: speak TLS with this certificate, and nothing else.
    :raises ListenerUnusable: says which address, why not, and what to do.
    """
    served: Any = factory if tls is None else TLSMemoryBIOFactory(tls, False, factory, reactor)
    # Twisted resolves no name here; the few that have a fixed meaning are written out.
    host = "127.0.0.1" if bind.host == "localhost" else bind.host
    try:
        port = reactor.listenTCP(bind.port, served, backlog=BACKLOG, interface=host)
    except CannotListenError as error:
        raise ListenerUnusable(_why(bind, error.socketError)) from None
    except OSError as error:
        raise ListenerUnusable(_why(bind, error)) from None
    real = Bind(host, port.getHost().port)
    return Listening(port, real, real.url(tls=tls is not None))


def _why(bind: Bind, error: Any) -> str:
    """Say why a port cannot be opened."""
    host = bind.host or "every address"
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return f"port {bind.port} on {host} is in use; choose another with --bind"
    if code in (errno.EACCES, errno.EPERM):
        return f"port {bind.port} on {host} is not allowed to this user; choose one above 1023 with --bind"
    if code == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; choose another with --bind"
    return f"cannot listen on {bind}: {error}; choose another address with --bind"
