"""The listener as a feature of a server: its site, its port, and their changes when a generation is adopted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from harn.auth.authenticator import LiveCredentials
from harn.auth.credentials import read_token, write_token
from harn.auth.keys import KeyRing
from harn.connectors.fetching import HttpFetcher
from harn.connectors.published import ListClocks, PublishedLists
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.intake import Intake
from harn.lifecycle import HandshakeCaptured
from harn.listener.admin import Admin
from harn.listener.admin_auth import AdminAuth
from harn.listener.admin_port import make_admin_port
from harn.listener.admin_refusals import AdminRefusals
from harn.listener.admission import Admission
from harn.listener.endpoint import Bind
from harn.listener.handshakes import Handshakes
from harn.listener.ingest import Ingest
from harn.listener.pages import make_pages
from harn.listener.peers import warn_of_certificates
from harn.listener.port import ServerPort
from harn.listener.published_operations import OPERATIONS, Published
from harn.listener.push import Push
from harn.listener.site import HarnSite, Places
from harn.listener.traced import TracedIngest, TracedPush
from harn.model.networks import split_sources
from harn.observability.metrics import GaugeValue, Metrics
from harn.operations.http import show_api
from harn.options import ServeOptions
from harn.reload.adopt import LiveGeneration
from harn.reload.connections import Connections
from harn.reload.generation import Candidate
from harn.reload.interfaces import Adopted, IRouteTable
from harn.server import Readiness, Server, SettingsChanged

REMEMBERED = 86400.0
"""Seconds for which the rate of a removed trigger is remembered."""


def install(server: Server, *, takes_over: bool = False) -> None:
    """
    Add the site with its pages, the port, admission and credentials.

    :param takes_over: whether this server replaces another program that still serves; its token is kept.
    """
    options = server.options
    token = token_of(options, takes_over=takes_over)
    credentials = server.add(LiveCredentials(token, server[KeyRing]))
    dispatcher, intake = server[Dispatcher], server[Intake]
    admission = server.add(Admission(server.reactor, **admission_defaults(server.environ), dispatcher=dispatcher))
    edge = (server.reactor, intake, admission, server.lifecycle, server.threads, credentials)
    pages = make_pages(server.metrics, server.readiness, server.threads)
    public, push = (Ingest(*edge), Push(*edge)) if server.traces is None else (TracedIngest(*edge), TracedPush(*edge))
    places = Places(public=public, credentials=server.add(push, Push), pages=pages)
    site = HarnSite(server.reactor, server.metrics, places, wall=server.wall)
    server.add(site, HarnSite, IRouteTable)
    server.services.add_closing(site.refusals)
    add_published_lists(server, site)
    admin = make_admin_port(server.reactor, options.admin_bind, site, takes_over=takes_over)
    port = server.add(ServerPort(server.reactor, Bind(options.host, options.port), site, admin))
    port.is_shared = options.shared_dir is not None
    server.services.add_closing(port)
    add_gauges(server.metrics, server.readiness, port)

    triggers = RememberedTriggers()
    server.lifecycle.subscribe(HandshakeCaptured, Handshakes(server).captured)
    server.lifecycle.subscribe(SettingsChanged, lambda event: site.apply(event.settings))
    server.lifecycle.subscribe(Adopted, lambda event: apply_generation(event.candidate, credentials, port, site))
    server.lifecycle.subscribe(
        Adopted,
        lambda event: admission.apply(
            event.candidate.generation.inputs.manifest.orchestrator.admission, triggers.adopted(event.candidate)
        ),
    )


def token_of(options: ServeOptions, *, takes_over: bool) -> bytes:
    """
    Return the token of commands: that of the program that this server replaces, or a new one. Blocks.

    :param takes_over: see `install`.
    """
    if options.shared_dir is not None:
        shared = read_token(options.shared_dir)
        return write_token(options.state_dir, shared)
    return (read_token(options.state_dir) if takes_over else None) or write_token(options.state_dir)


def add_published_lists(server: Server, site: HarnSite) -> None:
    """Add the lists of addresses that ``allow_from`` names."""
    lists = PublishedLists(
        ListClocks(server.reactor, server.wall), HttpFetcher(server.reactor), server.store.checkpoints
    )
    site.published = server.add(lists)
    server.background.add(lists)
    server.lifecycle.subscribe(Adopted, lambda event: lists.use(names_of_lists(event.candidate)))


def names_of_lists(candidate: Candidate) -> Iterator[str]:
    """Yield the published lists that the new triggers of a generation name."""
    triggers = candidate.generation.inputs.manifest.triggers
    for trigger_id in candidate.allowing:
        yield from split_sources(triggers[trigger_id].allow_from)[1]


def install_admin(server: Server) -> None:
    """Mount the admin API at ``/admin``. Called last, when every other feature has added its operations."""
    operations = server.operations
    operations.add(operations, show_api)
    server[Connections].published = server[PublishedLists]
    operations.add(Published(server[PublishedLists], server[LiveGeneration]), *OPERATIONS)
    auth = AdminAuth(wall=server.wall, credentials=server[LiveCredentials], inbox=server.store.inbox)
    server[HarnSite].mount(
        "/admin", server.add(Admin(auth, operations, AdminRefusals(server.reactor, server.wall, server)))
    )


def add_gauges(metrics: Metrics, readiness: Readiness, port: ServerPort) -> None:
    """Add the gauges of the listener."""

    def certificate() -> GaugeValue:
        at = port.certificate_expires_at()
        return {} if at is None else {(): at}

    metrics.gauge("harn_ready", "1 while the server should get requests.", lambda: float(not readiness.reasons()))
    metrics.gauge(
        "harn_certificate_expiration_timestamp_seconds",
        "When the listener's certificate ends; no series without TLS.",
        certificate,
    )


def apply_generation(candidate: Candidate, credentials: LiveCredentials, port: ServerPort, site: HarnSite) -> None:
    """Use the credentials, the certificate and the authorities of client certificates of a new generation."""
    inputs = candidate.generation.inputs
    credentials.replace(inputs.credentials)
    site.client_authorities = inputs.client_authorities
    port.ask_clients(wanted=bool(inputs.client_authorities))
    if inputs.client_authorities and inputs.certificate is None:
        warn_of_certificates(inputs.manifest.triggers.values())
    port.show_certificate(inputs.certificate)


class RememberedTriggers:
    """The triggers whose rates are kept: the live ones, and those removed less than `REMEMBERED` ago."""

    def __init__(self) -> None:
        self._removed_at: dict[str, float] = {}

    def adopted(self, candidate: Candidate) -> Collection[str]:
        """Called when ``candidate`` is adopted: return the ids of the triggers whose rates are kept."""
        now = candidate.generation.since
        for trigger_id in candidate.plan.removed:
            self._removed_at[trigger_id] = now
        for trigger_id in candidate.plan.added:
            self._removed_at.pop(trigger_id, None)
        gone = [trigger_id for trigger_id, at in self._removed_at.items() if at + REMEMBERED <= now]
        for trigger_id in gone:
            del self._removed_at[trigger_id]
        triggers = candidate.generation.inputs.manifest.triggers
        return {*triggers, *self._removed_at} if self._removed_at else triggers


def admission_defaults(environ: Mapping[str, str]) -> dict[str, float]:
    """Return the admission rates that the environment sets; without a valid value, a rate is off."""
    found: dict[str, float] = {}
    for name in ("global_capacity", "per_source_capacity", "refill_per_sec"):
        text = environ.get(f"HARN_ORCHESTRATOR_INGEST_{name.upper()}", "")
        try:
            value = float(text)
        except ValueError:
            continue
        if 0 < value < float("inf"):
            found[name] = value
    return found
