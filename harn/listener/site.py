"""
The site: the tree of routes, which is replaced by one assignment, the fixed pages, and all connections.

The path of a request is looked up in a dict of routes. ``twisted.web`` only renders the pages of Klein; see
`harn.listener.web`.
"""

# ruff: noqa: N802
# Names are those of twisted.
from __future__ import annotations

from collections.abc import Mapping
from math import inf
from urllib.parse import urlsplit

from msgspec import Struct, field
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.web.http import datetimeToString
from zope.interface import implementer

from harn.clocks import WallTime
from harn.connectors.interfaces import CREDENTIALS, VERIFIED_HERE
from harn.connectors.published import PublishedLists
from harn.listener.channel import HarnChannel
from harn.listener.connection_limit import ConnectionLimit
from harn.listener.hosts import OwnHosts, is_loopback
from harn.listener.phases import IDLE, STREAMING, Limits
from harn.listener.place import EMPTY, Place, Tree
from harn.listener.problems import unknown_path
from harn.listener.refusals import Refusals
from harn.listener.request import HarnRequest
from harn.listener.unverified import UnverifiedBodies
from harn.manifest.settings import AdmissionSettings, OrchestratorSettings
from harn.model.networks import Network, read_networks
from harn.observability.metrics import UNKNOWN_ENDPOINT, Metrics
from harn.reload.interfaces import IRouteTable
from harn.triggers.routing import Route

_SWEEP = 1.0  # seconds
_LAST_SWEEPS = 0.25  # seconds, while going down


class _Everything(Place):
    """The target of ``OPTIONS *``: the server as a whole."""

    def endpoint(self, request: HarnRequest) -> str:
        return "*"

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        return (b"GET", b"HEAD", b"OPTIONS", b"POST")


_EVERYTHING = _Everything()


class Places(Struct, frozen=True, kw_only=True):
    """
    The places of a site, except those that are mounted later.

    :ivar public: the place of routes whose senders the provider's signature authenticates.
    :ivar credentials: the place of routes whose senders the server's own credentials authenticate.
    :ivar pages: the server's pages, by exact path.
    """

    public: Place
    credentials: Place
    pages: Mapping[str, Place] = field(default_factory=dict)


@implementer(IRouteTable, IProtocolNegotiationFactory)
class HarnSite(ServerFactory):
    """
    The factory of all connections.

    :param clock: the reactor, or a clock in a test, for deadlines and durations.
    :ivar wall: the time of day, for timestamps and the age of signatures.
    :ivar tree: the tree of the live generation; a reload assigns another one.
    :ivar origins: the allowed values of ``Origin``; None for any.
    :ivar own_hosts: the hosts that requests to the server's own pages may name.
    :ivar max_body_bytes: the largest body of an ingest request.
    :ivar client_authorities: see `harn.reload.client_authorities.ClientAuthorities.certificates`.
    :ivar published: the lists of addresses that senders publish; None if they are not fetched.
    :ivar unverified: the bodies whose senders are not verified yet.
    :ivar connection_limit: the limit of open connections.
    :ivar refusals: the log of refused requests.
    :ivar is_divided: whether the server's own pages have a listener of their own, and are served there alone.
    :ivar in_flight: the number of requests whose headers are complete and which are not answered yet.
    :ivar quiescing: whether the server is shutting down.
    :ivar retiring: whether another process accepts new connections, and this one completes its open ones.
    :ivar closes: whether each connection is closed after its next response: ``quiescing`` or ``retiring``.
    """

    noisy = False
    unknown_endpoint = UNKNOWN_ENDPOINT

    def __init__(
        self,
        clock: IReactorTime,
        metrics: Metrics,
        places: Places,
        *,
        limits: Limits | None = None,
        wall: WallTime | None = None,
    ) -> None:
        """:param wall: the time of day; None to use ``clock``."""
        self.clock = clock
        self.wall: WallTime = wall or clock
        self.metrics = metrics
        self.limits = Limits() if limits is None else limits
        self.tree: Tree = EMPTY
        self.origins: frozenset[bytes] | None = None
        self.max_body_bytes = 10_485_760
        self.trusted_proxies: tuple[Network, ...] = ()
        self.own_hosts = OwnHosts()
        self.published: PublishedLists | None = None
        self.client_authorities: Mapping[str, bytes] = {}
        self.unverified = UnverifiedBodies(clock, AdmissionSettings().max_unverified_bytes)
        self.channels: set[HarnChannel] = set()
        self.refusals = Refusals(clock)
        self.connection_limit = ConnectionLimit(clock, self.channels, AdmissionSettings().max_connections)
        self.in_flight = 0
        self.is_divided = False
        self.quiescing = False
        self.retiring = False
        self.closes = False
        self._public = places.public
        self._credentials = places.credentials
        self._pages = {path.encode("ascii"): place for path, place in places.pages.items()}
        self._prefixes: dict[bytes, Place] = {}
        self._sweep: IDelayedCall | None = None
        self._listening = False
        self._date = b""
        self._date_until = -inf  # seconds of the clock
        self._quiet: list[Deferred[None]] = []
        self._served_out: list[Deferred[None]] = []
        self._quiet_by = 0.0
        self._patience = 0.0

    # The route table

    @property
    def generation(self) -> int:
        """Return the number of the live generation; 0 before the first."""
        return self.tree.generation

    def build(self, routes: Mapping[str, Route]) -> Tree:
        """Return a tree of these routes, without serving it."""
        return Tree.of(0, routes).with_apps(self._places())

    def swap(self, tree: Tree, generation: int) -> None:
        """Serve ``tree`` for further requests, on new and open connections. Running requests keep their own tree."""
        self.tree = tree.numbered(generation)

    def apply(self, settings: OrchestratorSettings) -> None:
        """Use these settings from the next request on. If they have no origins, or ``*``, any origin is allowed."""
        origins = frozenset(origin.strip().encode("utf-8") for origin in settings.allowed_origins if origin.strip())
        self.origins = None if not origins or b"*" in origins else origins
        self.max_body_bytes = settings.max_body_bytes
        self.trusted_proxies = read_networks(settings.trusted_proxies)
        console = urlsplit(settings.console_url or "").hostname
        allowed = frozenset(name.lower() for name in (*settings.admin_hosts, console) if name)
        self.own_hosts = replace(self.own_hosts, allowed=allowed)
        self.connection_limit.apply(settings.admission.max_connections)
        self.unverified.apply(settings.admission.max_unverified_bytes, settings.max_body_bytes)

    def listens_on(self, host: str | None) -> None:
        """
        Called with the address of the open port: on a loopback address, a ``Host`` in the public DNS is refused.

        :param host: the address; None for a Unix socket, which no browser opens: any ``Host`` is accepted.
        """
        self.own_hosts = replace(self.own_hosts, is_local=host is not None and is_loopback(host))

    def mount(self, prefix: str, place: Place) -> None:
        """Serve ``prefix`` and every path under it, for example ``/admin``, with ``place``."""
        self._prefixes[prefix.encode("ascii")] = place
        self.tree = self.tree.with_apps(self._places())

    def _places(self) -> tuple[Place, ...]:
        return (self._public, self._credentials, *self._pages.values(), *self._prefixes.values())

    # Finding a place

    def place_of_route(self, route: Route) -> Place:
        """Return the place of a trigger's route."""
        return self._credentials if route.authentication in (CREDENTIALS, VERIFIED_HERE) else self._public

    def place_of(self, request: HarnRequest) -> Place:
        """
        Return the place of a path without a trigger.

        :raises RouteUnknown: there is none.
        """
        path = request.path
        place = self._pages.get(path)
        hides = self.is_divided and not (request.channel is not None and request.channel.is_own)
        if place is not None and not (hides and place.is_own):
            return place
        for prefix, place in self._prefixes.items():
            if hides and place.is_own:
                continue
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/"):
                return place
        if path[:4].lower() == b"http":
            return self._place_of_absolute(request)
        if path == b"*" and request.method == b"OPTIONS":
            return _EVERYTHING
        raise unknown_path(request)

    def _place_of_absolute(self, request: HarnRequest) -> Place:
        """Return the place of a target in absolute form, ``http://host/path`` (RFC 9112, 3.2.2)."""
        scheme, separator, rest = request.path.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            raise unknown_path(request)
        request.path = b"/" + rest.partition(b"/")[2]
        is_own = request.channel is not None and request.channel.is_own
        route = request.route = None if is_own else request.tree.find(request.path.decode("utf-8", "replace"))
        if route is not None:
            return self.place_of_route(route)
        if request.path[:4].lower() == b"http":
            raise unknown_path(request)
        return self.place_of(request)

    # Connections

    def buildProtocol(self, addr: IAddress | None) -> HarnChannel:
        """Make the protocol of a new connection."""
        return HarnChannel(self)

    def acceptableProtocols(self) -> list[bytes]:
        """Return HTTP/1.1 only, even if h2 is installed."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Start to check deadlines. There is no log file to open."""
        self._listening = True
        if self._sweep is None:
            self._sweep = self.clock.callLater(_SWEEP, self._check_times)

    def stopFactory(self) -> None:
        """Stop checking deadlines when no connection is left: connections may stay open after the port is closed."""
        self._listening = False
        if not self.channels:
            self._stop_sweep()

    def date_header(self, now: float) -> bytes:
        """
        Return the ``Server`` and ``Date`` field lines, formatted once a second.

        :param now: seconds of the site's clock.
        """
        if now >= self._date_until:
            seconds = self.wall.seconds()
            self._date_until = now + 1.0 - seconds % 1.0
            self._date = b"Server: harn\r\nDate: " + datetimeToString(int(seconds)) + b"\r\n"
        return self._date

    def _check_times(self) -> None:
        """
        End the connections that exceed a deadline, and plan the next check.

        After a blocked turn, the reactor calls this before it reads bytes that clients sent meanwhile. So connections
        are ended one turn later, and only if they still exceed a deadline then.
        """
        self._sweep = None
        if self.retiring:
            self._hurry()  # for connections whose last response was sent just before
        now = self.clock.seconds()
        if any(channel.is_late(now) for channel in self.channels):
            self._sweep = self.clock.callLater(0.0, self._end_late)
        else:
            self._plan_sweep()

    def _end_late(self) -> None:
        now = self.clock.seconds()
        for channel in tuple(self.channels):
            if channel.is_late(now):
                channel.end_late(now)
        self._plan_sweep()

    def _plan_sweep(self) -> None:
        self._sweep = None
        if self.closes:
            self.check_quiet()
        if self._listening or self.channels:
            self._sweep = self.clock.callLater(_LAST_SWEEPS if self.quiescing else _SWEEP, self._check_times)

    def _stop_sweep(self) -> None:
        sweep, self._sweep = self._sweep, None
        if sweep is not None and sweep.active():
            sweep.cancel()

    # Shutting down

    def retire(self, patience: float) -> Deferred[None]:
        """
        Complete the open connections while another process accepts new ones. No request is refused.

        Each connection is closed after the response to its next request. Streams end. An idle connection waits up to
        ``patience`` seconds for that request.

        :return: fires when no connection is left.
        """
        self.retiring = self.closes = True
        self._patience = patience
        self._hurry()
        waiting: Deferred[None] = Deferred()
        self._served_out.append(waiting)
        self.check_quiet()
        return waiting

    def _hurry(self) -> None:
        leave_by = self.clock.seconds() + self._patience
        for channel in tuple(self.channels):
            if channel.phase is IDLE:
                channel.deadline = min(channel.deadline, leave_by)
            elif channel.phase is STREAMING:  # its client reaches the other process when it connects again
                channel.end()

    def quiesce(self) -> Deferred[None]:
        """
        Accept no more work: answer new requests to triggers with 503, close each connection after its next response.

        Idle connections are closed at once. A request that is not complete within `Limits.grace` is answered with 503.

        :return: fires when no request is in flight, and each response was read or its time to be read has passed.
        """
        if not self.quiescing:
            self.quiescing = self.closes = True
            for channel in tuple(self.channels):
                channel.go_down()
            if self._sweep is not None and self._sweep.active():
                self._sweep.reset(_LAST_SWEEPS)
        waiting: Deferred[None] = Deferred()
        self._quiet.append(waiting)
        self._quiet_by = self.clock.seconds() + self.limits.linger
        self.check_quiet()
        return waiting

    def check_quiet(self) -> None:
        """Fire the waiters when the site is quiet."""
        if not self.channels:
            served_out, self._served_out = self._served_out, []
            for each in served_out:
                each.callback(None)
        if not self._quiet:
            return
        if self.in_flight:
            self._quiet_by = self.clock.seconds() + self.limits.linger
        elif self.clock.seconds() >= self._quiet_by or not any(channel.holds_up for channel in self.channels):
            waiting, self._quiet = self._quiet, []
            for each in waiting:
                each.callback(None)
