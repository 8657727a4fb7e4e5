"""The status of a server: in the state file, in answers to ``inspect``, in records of its life, and in one line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

import harn
from harn.circuits.service import Circuits, CircuitStates
from harn.clocks import rfc3339
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.pauses import Pauses
from harn.listener.endpoint import Bind
from harn.listener.port import ServerPort
from harn.listener.site import HarnSite
from harn.observability.counts import NO_COUNTS, VersionCounts
from harn.orchestrator import operations
from harn.orchestrator.operations import Activation, LastReload, ServerService, TriggerInfo
from harn.orchestrator.recovery import RecoveryService
from harn.reload.coordinator import Coordinator
from harn.reload.report import ReloadReport
from harn.server import Server
from harn.statistics.figures import Figures, TriggerFigures
from harn.statistics.gauges import Backlogs
from harn.statistics.totals import TriggerTotals
from harn.store.holds import ALL
from harn.store.lock import RUNNING, STOPPED
from harn.triggers.binding import ACTIVE, BindingVersion
from harn.triggers.registry import Registry
from harn.triggers.routing import NO_RAMPS, Ramp, share_of

if TYPE_CHECKING:
    from harn.orchestrator.publish import StateLines

LIFECYCLE = "orchestrator.lifecycle"
"""The topic of a server's start and end."""

_encoder = msgspec.json.Encoder()


class ServerFacts(Struct, frozen=True, kw_only=True):
    """
    The facts of a running server that do not change.

    :ivar host: the bound address.
    :ivar port: the real port.
    :ivar admin_url: the URL of the separate admin listener; None if there is none.
    :ivar manifest_path: the absolute path of the manifest.
    :ivar state_dir: the absolute path of the state directory.
    :ivar started_at: when the server started (seconds, Unix).
    :ivar secret_provider_chain: for example ``env -> keyring``.
    :ivar event_log_location: a path or URL without credentials, or None.
    """

    host: str
    port: int
    tls: bool
    manifest_path: str
    state_dir: str
    started_at: float
    pid: int
    secret_provider_chain: str
    event_log_backend: str
    event_log_location: str | None
    role: str
    admin_url: str | None = None


class ServerState(Struct, frozen=True, kw_only=True):
    """
    The changing state of a running server.

    :ivar pinned: whether a pin keeps the live generation although the files differ; see `Pin`.
    :ivar bindings: every live and draining version.
    :ivar ramps: the running ramps, by trigger id.
    :ivar counts: the counts of each version, by its key.
    :ivar figures: the figures of each trigger.
    :ivar paused: the ids of paused triggers; `ALL` for the whole server.
    :ivar circuits: the state of each circuit, by trigger id.
    :ivar last_reload: the last reload; None before the first.
    :ivar stopped_at: when the server stopped (seconds, Unix); None while it runs.
    """

    generation: int
    digest: str
    pinned: bool
    bindings: Iterable[BindingVersion]
    counts: Mapping[str, VersionCounts]
    figures: Figures = field(default_factory=Figures)
    paused: Collection[str] = ()
    circuits: CircuitStates | Mapping[str, str] = field(default_factory=dict)
    ramps: Mapping[str, Ramp] = NO_RAMPS
    last_reload: ReloadReport | None = None
    stopped_at: float | None = None


class StateHead(msgspec.Struct, frozen=True, kw_only=True):
    """The document of the state file, without its triggers."""

    status: str
    harn_version: str
    role: str
    pid: int
    bind: str
    listener_url: str
    admin_url: str | msgspec.UnsetType = msgspec.UNSET
    manifest_path: str
    state_dir: str
    started_at: str
    stopped_at: str | None
    secret_provider_chain: str
    event_log_backend: str
    event_log_location: str | None
    generation: int
    digest: str
    pinned: bool
    last_reload: LastReload | None
    connectors: tuple[str, ...]
    activations: tuple[Activation, ...]


class StateDocument(Struct, frozen=True):
    """The document of the state file."""

    head: StateHead
    triggers: tuple[TriggerInfo, ...]

    def encode(self) -> bytes:
        """Return the document as text that people can read: one line for each value and for each trigger."""
        return encode_state(self.head, map(_encoder.encode, self.triggers))


def encode_state(head: StateHead, lines: Iterable[bytes]) -> bytes:
    """Return the document as text; ``lines`` are the encoded entries of ``triggers``."""
    text = msgspec.json.format(_encoder.encode(head), indent=2).removesuffix(b"\n}")
    entries = b",\n    ".join(lines)
    triggers = b"[\n    " + entries + b"\n  ]" if entries else b"[]"
    return text + b',\n  "triggers": ' + triggers + b"\n}\n"


def describe(facts: ServerFacts, state: ServerState) -> StateDocument:
    """Return the document of the state file."""
    bindings = list(state.bindings)
    return StateDocument(head_of(facts, state, bindings), tuple(_entries(state, bindings)))


def head_of(facts: ServerFacts, state: ServerState, bindings: Iterable[BindingVersion]) -> StateHead:
    """Return the document of the state file without its triggers."""
    bind = Bind(facts.host, facts.port)
    replaced = {ramp.stable for ramp in state.ramps.values()}  # a trigger on a ramp is in force once
    in_force = [binding for binding in bindings if binding.state == ACTIVE]
    providers = Counter([binding.spec.provider for binding in in_force if not replaced or binding not in replaced])
    return StateHead(
        status=RUNNING if state.stopped_at is None else STOPPED,
        harn_version=harn.__version__,
        role=facts.role,
        pid=facts.pid,
        bind=str(bind),
        listener_url=bind.url(tls=facts.tls),
        admin_url=facts.admin_url or msgspec.UNSET,
        manifest_path=facts.manifest_path,
        state_dir=facts.state_dir,
        started_at=rfc3339(facts.started_at),
        stopped_at=shown_time(state.stopped_at),
        secret_provider_chain=facts.secret_provider_chain,
        event_log_backend=facts.event_log_backend,
        event_log_location=facts.event_log_location,
        generation=state.generation,
        digest=state.digest,
        pinned=state.pinned,
        last_reload=None if state.last_reload is None else describe_reload(state.last_reload),
        connectors=tuple(sorted(providers)),
        activations=tuple(
            Activation(provider=provider, binding_count=providers[provider]) for provider in sorted(providers)
        ),
    )


def _entries(state: ServerState, bindings: Iterable[BindingVersion]) -> Iterator[TriggerInfo]:
    is_all_paused = ALL in state.paused
    for binding in bindings:
        yield entry_of(state, binding, is_all_paused or binding.id in state.paused)


def entry_of(state: ServerState, binding: BindingVersion, paused: bool) -> TriggerInfo:
    """Return the entry of one version as it is now."""
    return entry(
        binding,
        state.counts.get(binding.key, NO_COUNTS),
        state.figures.of(binding.id),
        share_on_ramp(binding, state.ramps),
        paused,
        state.circuits.get(binding.id),
    )


def describe_reload(report: ReloadReport) -> LastReload:
    """Return the entry ``last_reload``."""
    return LastReload(
        source=report.source,
        actor=report.actor,
        status=report.status,
        at=rfc3339(report.at),
        error=report.error,
    )


def share_on_ramp(binding: BindingVersion, ramps: Mapping[str, Ramp]) -> float | None:
    """Return the share (0 to 1) that a version takes of its trigger's new deliveries; None without a ramp."""
    ramp = ramps.get(binding.id)
    return None if ramp is None or binding not in ramp.versions else share_of(binding, ramps)


def entry(
    binding: BindingVersion,
    counts: VersionCounts,
    figures: TriggerFigures,
    share: float | None,
    paused: bool,
    circuit: str | None,
) -> TriggerInfo:
    """
    Return the entry of one version, with the figures of its trigger. Positional arguments, for up to 10,000 entries.

    :param share: the version's share of its trigger's new deliveries (0 to 1); None leaves it out.
    :param circuit: the state of its trigger's circuit; None if it has none.
    """
    spec = binding.spec
    return TriggerInfo(
        binding.id,
        spec.provider,
        spec.kind,
        spec.handler_kind,
        binding.version,
        binding.state,
        msgspec.UNSET if share is None else round(share * 100.0, 4),
        counts.received,
        figures.refused,
        counts.dispatched,
        counts.failed,
        counts.dead,
        binding.in_flight,
        figures.accepted,
        figures.running,
        figures.waiting,
        figures.dead,
        shown_time(figures.last_success),
        shown_time(figures.last_failure),
        shown_time(figures.next_due),
        paused,
        circuit,
    )


def shown_time(at: float | None) -> str | None:
    """Return a time (seconds, Unix) in the form of documents, RFC 3339."""
    return None if at is None else rfc3339(at)


def status_line(server: Server) -> str:
    """Return a line that names the live generation."""
    return f"generation {server[Coordinator].generation} serves"


class WorkCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of unfinished work, for records of a server's end."""

    http_in_flight: int
    dispatcher_in_flight: int
    dispatcher_queued: int
    dispatcher_retry_queue_depth: int


def work_counts(server: Server) -> WorkCounts:
    """Count the unfinished deliveries."""
    dispatcher = server[Dispatcher]
    return WorkCounts(
        http_in_flight=server[HarnSite].in_flight,
        dispatcher_in_flight=len(dispatcher.in_progress),
        dispatcher_queued=dispatcher.queued,
        dispatcher_retry_queue_depth=sum(server[Registry].waiting.values()),
    )


class ServerIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of a server, in the records of its life."""

    bind: str
    manifest: str
    role: str
    state_dir: str
    pid: int
    generation: int
    trigger_count: int
    tls_enabled: bool


def identity(server: Server) -> ServerIdentity:
    """Return the identity of this server."""
    coordinator, port, options = server[Coordinator], server[ServerPort], server.options
    live = coordinator.current
    return ServerIdentity(
        bind="" if port.listening is None else str(port.bind),
        manifest=options.manifest,
        role=options.role,
        state_dir=options.state_dir,
        pid=os.getpid(),
        generation=coordinator.generation,
        trigger_count=0 if live is None else len(live.bindings),
        tls_enabled=port.has_tls,
    )


async def note_life(server: Server, kind: str, *facts: msgspec.Struct, **more: object) -> None:
    """Append a record about the server's life, with the fields of ``facts`` and ``more``."""
    payload = {name: value for each in facts for name, value in msgspec.structs.asdict(each).items()}
    await server.note(LIFECYCLE, kind, {**payload, **more})


class ServerSnapshot(Struct, frozen=True):
    """
    The status of a server at one moment.

    :ivar lines: the lines of the state file as they were written last.
    """

    facts: ServerFacts
    state: ServerState
    lines: StateLines | None = None

    def encode(self) -> bytes:
        """Return the text of the state file, with the lines that have not changed. May be called in a thread."""
        return (
            describe(self.facts, self.state).encode()
            if self.lines is None
            else self.lines.encode(self.facts, self.state)
        )


class ServerStatus(Struct, frozen=True):
    """The present status of a server; ``lines`` as in `ServerSnapshot`."""

    server: Server
    lines: StateLines

    def snapshot(self) -> ServerSnapshot:
        """Return the status at this moment."""
        server = self.server
        coordinator, port, registry, options = server[Coordinator], server[ServerPort], server[Registry], server.options
        live = coordinator.current
        facts = ServerFacts(
            host=port.bind.host,
            port=port.bind.port,
            tls=port.has_tls,
            manifest_path=options.manifest,
            state_dir=options.state_dir,
            started_at=server.started_at,
            pid=os.getpid(),
            secret_provider_chain="" if live is None else live.inputs.secret_chain,
            event_log_backend=server.store.backend,
            event_log_location=server.store.location,
            role=options.role,
            admin_url=port.admin_url,
        )
        state = ServerState(
            generation=coordinator.generation,
            digest="" if live is None else live.digest,
            pinned=live is not None and live.pin is not None,
            bindings=registry.all(),
            counts=server.metrics.versions,
            paused=server[Pauses].names(),
            circuits=server[Circuits].states(),
            figures=server[Backlogs].figures(server[TriggerTotals]),
            ramps=registry.ramps,
            last_reload=coordinator.last,
            stopped_at=server.stopped_at,
        )
        return ServerSnapshot(facts, state, self.lines)


def install(server: Server) -> None:
    """Add the operations on the server as a whole."""
    whole = ServerService(
        store=server.store,
        metrics=server.metrics,
        registry=server[Registry],
        dispatcher=server[Dispatcher],
        coordinator=server[Coordinator],
        recovery=server[RecoveryService],
        backlogs=server[Backlogs],
        status=server[ServerStatus],
        threads=server.threads,
    )
    server.operations.add(whole, *operations.OPERATIONS)
