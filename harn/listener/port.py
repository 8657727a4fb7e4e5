"""The port of one server, with its certificate: opened late in a start, left to another process at an upgrade."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from harn.listener.admin_port import IAdminPort
from harn.listener.descriptors import connections_within, open_file_limit, open_files
from harn.listener.endpoint import Bind, Listening, listen
from harn.listener.site import HarnSite
from harn.listener.tls import TlsContext

log = Logger(namespace="harn")

FEW = 100
"""The limit of connections below which a warning is logged."""
LONGEST_FAREWELL = 5.0
"""Seconds that an idle connection may wait for one more request when another process takes the new ones."""


class ServerPort:
    """
    Serves a site on one address.

    :param bind: the address to listen on.
    :param admin: the listener of the server's own pages, if they have one; it is opened, paused and closed together
        with this port.
    :ivar listening: the open port; None until `open`.
    :ivar is_shared: whether other processes always accept connections of the same socket.
    """

    def __init__(self, reactor: Any, bind: Bind, site: HarnSite, admin: IAdminPort | None = None) -> None:
        self._reactor = reactor
        self._asked = bind
        self._site = site
        self._admin = admin
        self._tls: TlsContext | None = None
        self._asks_clients = False
        self.listening: Listening | None = None
        self.is_shared = False

    @property
    def bind(self) -> Bind:
        """Return the address of the open port; before `open`, the one to listen on."""
        return self._asked if self.listening is None else self.listening.bind

    @property
    def admin_url(self) -> str | None:
        """Return the URL of the listener of the server's own pages; None if this port serves them."""
        return None if self._admin is None else self._admin.url

    @property
    def has_tls(self) -> bool:
        """Return whether the port serves TLS."""
        return self._tls is not None

    def certificate_expires_at(self) -> float | None:
        """Return when the server's certificate expires (seconds, Unix); None without TLS."""
        return None if self._tls is None else self._tls.expires_at()

    def open(self, certificate: Any, inherited: int | None = None) -> str:
        """
        Listen; return the URL.

        :param certificate: see `harn.listener.tls`; None to speak plain HTTP.
        :param inherited: the descriptor of a socket to listen on, instead of the address.
        :raises ListenerUnusable: the port cannot be opened; the message says what to do.
        """
        if certificate is not None:
            self._tls = TlsContext(certificate)
            self._tls.asks_clients = self._asks_clients
        limit = self._site.connection_limit
        self.listening = listen(self._reactor, self._asked, self._site, self._tls, inherited, limit=limit)
        self.listening.port.is_shared = self.is_shared
        self._site.listens_on(self.listening.bind.host)
        if self._admin is not None:
            self._admin.open(self._tls)
        files = open_file_limit()
        limit.allow(connections_within(files, open_files()))
        if limit.most < FEW:
            log.warn(
                "there may be {most} connections at once: the limit of open files is {files}; raise it (ulimit -n;"
                " LimitNOFILE= of a systemd unit), or max_connections in [orchestrator.admission]",
                most=limit.most,
                files=files,
            )
        return self.listening.url

    def show_certificate(self, certificate: Any) -> None:
        """Use this certificate from the next TLS handshake on."""
        if self._tls is not None:
            self._tls.replace(certificate)

    def ask_clients(self, *, wanted: bool) -> None:
        """Set whether clients are asked for a certificate, from the next TLS handshake on."""
        self._asks_clients = wanted
        if self._tls is not None:
            self._tls.asks_clients = wanted

    def pause(self) -> None:
        """Stop accepting connections: they wait in the socket's queue, or another process accepts them."""
        if self.listening is not None:
            self.listening.pause()
        if self._admin is not None:
            self._admin.pause()

    def resume(self) -> None:
        """Accept connections again."""
        if self.listening is not None:
            self.listening.resume()
        if self._admin is not None:
            self._admin.resume()

    def retire(self, limit: float) -> Deferred[None]:
        """
        Leave new connections to another process.

        :return: fires when the present connections have ended, or after ``limit`` seconds.
        """
        self.pause()
        if self._admin is not None:
            self._admin.close()  # a paused one would continue to get some of the connections
        return self._site.retire(min(LONGEST_FAREWELL, limit))

    def close(self) -> Deferred[Any] | None:
        """Stop listening."""
        if self._admin is not None:
            self._admin.close()
        if self.listening is None:
            return None
        return maybeDeferred(self.listening.port.stopListening)
