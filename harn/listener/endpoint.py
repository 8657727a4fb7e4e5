"""Listening sockets: an address with its URL, and the port of a new socket or an inherited one."""

# twisted.internet.tcp is not typed.
# mypy: allow-untyped-calls
from __future__ import annotations

import errno
import os
import select
import socket
from typing import Any, Protocol

from msgspec import Struct
from twisted.internet.interfaces import IDelayedCall, IProtocolFactory
from twisted.internet.tcp import Port
from twisted.python.failure import Failure

from harn.errors import ListenerUnusable
from harn.listener.readers import Readers, ReadTogether
from harn.listener.tls import OwnPagesTls, TlsContext, TlsFactory

BACKLOG = 1024
RESTS_FOR = 0.1
"""Seconds after which a port that could accept nothing tries again."""


class Bind(Struct, frozen=True):
    """
    An address to listen on.

    :ivar host: an IP address, or a name; empty and ``0.0.0.0`` for every address of IPv4, ``::`` for all.
    :ivar port: the port number; 0 for any free one.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def url(self, *, tls: bool) -> str:
        """Return the URL of this address on this machine: a wildcard is written as loopback."""
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"{'https' if tls else 'http'}://{Bind(host, self.port)}"


class Listening(Struct, frozen=True):
    """
    An open port with its actual address.

    Stopping the port closes only our descriptor of its socket: another process may hold the socket, too.
    """

    port: LimitedPort
    bind: Bind
    url: str

    @property
    def descriptor(self) -> int:
        """Return the socket's descriptor, for a process that will inherit it."""
        number: int = self.port.fileno()
        return number

    def pause(self) -> None:
        """Stop accepting: connections wait in the socket's queue, or for another process that has the socket."""
        self.port.pause()

    def resume(self) -> None:
        """Accept connections again."""
        self.port.resume()


class IRoom(Protocol):
    """The capacity that a port checks before it accepts."""

    @property
    def room(self) -> int:
        """Return the number of connections that may still be accepted."""

    def relieve(self) -> None:
        """Called when a connection waits to be accepted and there is no room for it."""


class _Unlimited:
    room = 1000

    def relieve(self) -> None:
        """Do nothing: the capacity is unlimited."""


class LimitedPort(Port):
    """
    A port that accepts no more connections than the limit allows; the others wait in the socket's queue.

    It pauses for `RESTS_FOR` when the limit is reached, and when it could not accept a connection although the socket
    was readable (for example when no descriptor is left). Otherwise the reactor would poll it in a busy loop.

    :ivar limit: returns the number of connections that may be accepted now.
    :ivar readers: reads the port's connections; None without epoll, when the reactor reads them.
    :ivar is_shared: whether other processes accept connections of the same socket. Then the port accepts one at a time,
        so that a burst of connections is distributed.
    """

    reactor: Any
    limit: IRoom
    readers: Readers | None = None
    is_shared = False
    _is_paused = False
    _rest: IDelayedCall | None = None

    def doRead(self) -> None:  # noqa: N802 - twisted's name
        """Accept as many connections as the limit allows."""
        room, accepted = self.limit.room, self.sessionno
        if room > 0:
            self.numberAccepts = 1 if self.is_shared else min(self.numberAccepts, room)
            super().doRead()
        else:
            self.limit.relieve()
        is_in_vain = self.sessionno == accepted and self.connected and self._rest is None
        if is_in_vain and (not self.is_shared or self._has_waiting()):
            self.stopReading()
            self._rest = self.reactor.callLater(RESTS_FOR, self._rested)

    def _has_waiting(self) -> bool:
        """Return whether a connection waits to be accepted: another process may have accepted it meanwhile."""
        asked = select.poll()
        asked.register(self.fileno(), select.POLLIN)
        return bool(asked.poll(0))

    def pause(self) -> None:
        """Accept nothing until `resume`."""
        self._is_paused = True
        self.stopReading()

    def resume(self) -> None:
        """Accept again."""
        self._is_paused = False
        if self._rest is None:
            self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """Called when the port is closed."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        super().connectionLost(reason)

    def _rested(self) -> None:
        self._rest = None
        if not self._is_paused:
            self.startReading()


def listen(
    reactor: Any,
    bind: Bind,
    factory: IProtocolFactory,
    tls: TlsContext | OwnPagesTls | None = None,
    inherited: int | None = None,
    *,
    limit: IRoom | None = None,
) -> Listening:
    """
    Open the port.

    :param reactor: an ``IReactorFDSet`` with an ``IReactorTime``.
    :param tls: makes the TLS connections; None to speak plain HTTP.
    :param inherited: the descriptor of a listening socket to use instead of ``bind``; it is closed.
    :param limit: returns the number of connections that may be accepted now; None for no limit.
    :raises ListenerUnusable: the port cannot be opened; the message names the address or descriptor, the cause, and
        what to do.
    """
    served: Any = factory if tls is None else TlsFactory(tls, False, factory, reactor)
    with open_socket(bind) if inherited is None else inherited_socket(inherited) as listening:
        host, number = listening.getsockname()[:2]
        # This is what the reactor's ``adoptStreamPort`` does, with our own class of port.
        readers = _make_readers(reactor, bind)
        port = LimitedPort._fromListeningDescriptor(reactor, listening.fileno(), listening.family, served)
        port.limit = _Unlimited() if limit is None else limit
        if readers is not None:
            port.readers, port.transport = readers, ReadTogether
        port.startListening()
    # A socket that we opened has the requested host; an inherited one has only its address.
    real = Bind(bind.host if inherited is None else host, number)
    return Listening(port, real, real.url(tls=tls is not None))


def _make_readers(reactor: Any, bind: Bind) -> Readers | None:
    """
    Make the reader of a port's connections; None where there is no epoll.

    :raises ListenerUnusable: no descriptor is left for the epoll.
    """
    if not hasattr(select, "epoll"):
        return None
    try:
        return Readers(reactor)
    except OSError as error:
        raise ListenerUnusable(
            f"cannot watch the connections of {bind}: {error.strerror}; raise the limit of open files (ulimit -n;"
            " LimitNOFILE= of a systemd unit)"
        ) from None


def inherited_socket(descriptor: int) -> socket.socket:
    """
    Return the socket of an inherited descriptor; closing the socket closes the descriptor.

    :raises ListenerUnusable: the descriptor is not that of a listening stream socket of IPv4 or IPv6.
    """
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise _unfit(descriptor, f"is not an open socket ({error.strerror})") from None
    why = None
    if found.family not in (socket.AF_INET, socket.AF_INET6):
        why = f"is a socket of the family {getattr(found.family, 'name', found.family)}"
    elif found.type != socket.SOCK_STREAM:
        why = f"is a socket of the type {getattr(found.type, 'name', found.type)}"
    elif not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        why = "is a socket that does not listen"
    if why is not None:
        found.close()
        raise _unfit(descriptor, why)
    found.setblocking(False)
    return found


def open_socket(bind: Bind) -> socket.socket:
    """
    Return a new listening socket.

    :raises ListenerUnusable: the socket cannot be opened; the message names the address and the cause.
    """
    # IPv4, even if a resolver would prefer IPv6.
    host = "127.0.0.1" if bind.host == "localhost" else bind.host
    opened: socket.socket | None = None
    try:
        opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(_address(host, bind.port))
        opened.listen(BACKLOG)
    except OSError as error:
        if opened is not None:
            opened.close()
        raise ListenerUnusable(why_unusable(bind, error)) from None
    return opened


def _address(host: str, port: int) -> Any:
    """Return a socket address for the family of ``host``; an IPv6 host may have a zone (``fe80::1%eth0``)."""
    if ":" not in host:
        return (host, port)
    flags = socket.AI_NUMERICHOST | socket.AI_PASSIVE
    return socket.getaddrinfo(host, port, socket.AF_INET6, socket.SOCK_STREAM, 0, flags)[0][4]


def _unfit(descriptor: int, why: str) -> ListenerUnusable:
    return ListenerUnusable(
        f"the inherited descriptor {descriptor} {why}; the server can serve a listening TCP socket: in a systemd socket"
        " unit, ListenStream= with a port, and Accept=no"
    )


def why_unusable(bind: Bind, error: OSError) -> str:
    """Return why a port cannot be opened, and what to do."""
    host = bind.host or "every address"
    code = error.errno
    if code == errno.EADDRINUSE:
        return f"port {bind.port} on {host} is in use; choose another with --bind"
    if code in (errno.EACCES, errno.EPERM):
        return f"port {bind.port} on {host} is not allowed to this user; choose one above 1023 with --bind"
    if code == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; choose another with --bind"
    return f"cannot listen on {bind}: {error}; choose another address with --bind"
