"""
A separate listener for admin, metrics and console, on another address or a UNIX socket.

In an upgrade in place, the new program opens it while the old one still has it: both share the port of an address. A
UNIX socket replaces the old one in one step when the new program serves.
"""

# Names are those of twisted; twisted.internet.unix is not typed.
# ruff: noqa: N802
# mypy: allow-untyped-calls
from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.internet.tcp import Port
from twisted.internet.unix import Port as UnixPort
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from harn.errors import ListenerUnusable
from harn.listener.channel import HarnChannel
from harn.listener.endpoint import BACKLOG, Bind, Listening, listen, why_unusable
from harn.listener.site import HarnSite
from harn.listener.tls import OwnPagesTls, TlsContext

OWNER_ONLY = 0o600
OPTION = "--admin-bind"


class IAdminPort(Interface):
    """The separate listener, which is opened and paused together with the listener of the triggers."""

    url: str = Attribute("``http://HOST:PORT``, ``https://HOST:PORT`` or ``unix:PATH``.")

    def open(tls: TlsContext | None) -> None:
        """
        Acquire the address without accepting connections.

        :raises ListenerUnusable: the address cannot be used; the message says what to do.
        """

    def resume() -> None:
        """Accept connections."""

    def pause() -> None:
        """Stop accepting connections, which wait in the queue or are accepted by another program."""

    def close() -> Deferred[Any] | None:
        """Stop listening."""


class OwnPages(ServerFactory):
    """Makes connections of a site on which its own pages are served, and no routes of triggers."""

    noisy = False

    def __init__(self, site: HarnSite) -> None:
        self._site = site

    def buildProtocol(self, addr: IAddress | None) -> HarnChannel:
        """Make the protocol of a new connection."""
        channel = HarnChannel(self._site)
        channel.is_own = True
        return channel


@implementer(IAdminPort)
class AdminAddress:
    """A separate address; with TLS if the listener of the triggers has TLS."""

    def __init__(self, reactor: Any, bind: Bind, site: HarnSite, *, takes_over: bool = False) -> None:
        """:param takes_over: the program whose place this one takes still has the address."""
        self._takes_over = takes_over
        self._reactor = reactor
        self._bind = bind
        self._site = site
        self._tls: TlsContext | None = None
        self._socket: socket.socket | None = None
        self._listening: Listening | None = None

    @property
    def url(self) -> str:
        """See `IAdminPort.url`."""
        return self._bind.url(tls=self._tls is not None)

    def open(self, tls: TlsContext | None) -> None:
        """See `IAdminPort.open`."""
        self._tls = tls
        host = "127.0.0.1" if self._bind.host == "localhost" else self._bind.host
        opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # for an upgrade; only of the same user
            if not self._takes_over:
                refuse_taken(host, self._bind)
            opened.bind((host, self._bind.port))
        except OSError as error:
            opened.close()
            raise ListenerUnusable(why_unusable(self._bind, error).replace("--bind", OPTION)) from None
        except ListenerUnusable:
            opened.close()
            raise
        self._bind = Bind(self._bind.host, opened.getsockname()[1])
        self._socket = opened
        self._site.listens_on(self._bind.host)

    def resume(self) -> None:
        """See `IAdminPort.resume`."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.listen(BACKLOG)
            tls = None if self._tls is None else OwnPagesTls(self._tls)
            self._listening = listen(self._reactor, self._bind, OwnPages(self._site), tls, inherited=opened.detach())
        elif self._listening is not None:
            self._listening.resume()

    def pause(self) -> None:
        """See `IAdminPort.pause`."""
        if self._listening is not None:
            self._listening.pause()

    def close(self) -> Deferred[Any] | None:
        """See `IAdminPort.close`."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        return None if self._listening is None else maybeDeferred(self._listening.port.stopListening)


def refuse_taken(host: str, bind: Bind) -> None:
    """
    Refuse an address on which another server of the same user listens, since both would share the port.

    :raises OSError: another server listens on it.
    """
    if not bind.port:
        return
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind((host, bind.port))


class OwnedUnixPort(UnixPort):
    """
    A UNIX socket that has a temporary name until `rename`; only its owner may connect.

    When it is closed, its file is removed, unless another program has replaced the file.
    """

    def startListening(self) -> None:
        """Listen under the temporary name."""
        super().startListening()
        self._inode = os.stat(self._bindPath).st_ino

    def rename(self, path: str) -> None:
        """Rename the socket to ``path``, in place of a socket that has this name."""
        os.rename(self._bindPath, path)
        self._bindPath = os.fsencode(path)

    def connectionLost(self, reason: Failure) -> None:
        """Called when the port is closed."""
        with suppress(OSError):
            if os.stat(self._bindPath).st_ino == self._inode:
                os.unlink(self._bindPath)
        Port.connectionLost(self, reason)


@implementer(IAdminPort)
class AdminSocket:
    """A UNIX socket, which only the server's user may use."""

    def __init__(self, reactor: Any, path: str, site: HarnSite, *, takes_over: bool = False) -> None:
        """:param takes_over: the program whose place this one takes still has the socket."""
        self._takes_over = takes_over
        self._reactor = reactor
        self._path = path
        self.url = f"unix:{path}"
        self._site = site
        self._port: OwnedUnixPort | None = None
        self._is_named = False

    def open(self, tls: TlsContext | None) -> None:
        """See `IAdminPort.open`; it speaks no TLS."""
        if not self._takes_over:
            self._refuse_taken()
        first = f"{self._path}~"
        with suppress(OSError):
            os.unlink(first)  # of a process that was killed while it started
        port = OwnedUnixPort(os.fsencode(first), OwnPages(self._site), BACKLOG, OWNER_ONLY, self._reactor)
        try:
            port.startListening()
        except Exception as error:  # Twisted's own class around an OSError, or another where the path is too long
            cause = getattr(error, "socketError", error)
            why = getattr(cause, "strerror", None) or cause
            raise ListenerUnusable(
                f"the socket {self._path} cannot be made: {why}; give {OPTION} a short path in a directory that the"
                " server's user may write to"
            ) from None
        port.stopReading()
        self._port = port
        self._site.listens_on(None)

    def _refuse_taken(self) -> None:
        """
        Refuse a path that is a file, or a socket on which a program listens; a socket of one that ended is replaced.

        :raises ListenerUnusable: names it.
        """
        try:
            mode = os.lstat(self._path).st_mode
        except OSError:
            return  # making it says what is wrong
        if not stat.S_ISSOCK(mode):
            raise ListenerUnusable(f"{self._path} is not a socket; remove it, or choose another path with {OPTION}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
            try:
                tried.connect(self._path)
            except OSError:
                return
        raise ListenerUnusable(f"another program listens on {self._path}; choose another path with {OPTION}")

    def resume(self) -> None:
        """See `IAdminPort.resume`."""
        if self._port is None:
            return
        if not self._is_named:
            self._is_named = True
            self._port.rename(self._path)
        self._port.startReading()

    def pause(self) -> None:
        """See `IAdminPort.pause`."""
        if self._port is not None:
            self._port.stopReading()

    def close(self) -> Deferred[Any] | None:
        """See `IAdminPort.close`."""
        port, self._port = self._port, None
        return None if port is None else maybeDeferred(port.stopListening)


def make_admin_port(
    reactor: Any, asked: tuple[str, int] | str | None, site: HarnSite, *, takes_over: bool
) -> AdminAddress | AdminSocket | None:
    """Return the listener of an address, or of the path of a socket; None for none."""
    if asked is None:
        return None
    site.is_divided = True
    if isinstance(asked, str):
        return AdminSocket(reactor, asked, site, takes_over=takes_over)
    return AdminAddress(reactor, Bind(*asked), site, takes_over=takes_over)
