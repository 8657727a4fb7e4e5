"""
``orchestrator-state.json``: the server's state, for commands and monitoring.

`describe` makes the document of plain values; `StateFile` replaces the file, whole or not at all, off the reactor
thread. Other processes read it with `harn.orchestrator.running`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec
from attrs import frozen
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

import harn
from harn.clocks import rfc3339
from harn.listener.endpoint import Bind
from harn.observability.counts import NO_COUNTS, VersionCounts
from harn.orchestrator.operations import TriggerInfo
from harn.orchestrator.running import RUNNING, STOPPED
from harn.reload.report import ReloadReport
from harn.statistics.figures import Figures, TriggerFigures
from harn.store.holds import ALL
from harn.triggers.binding import ACTIVE, BindingVersion
from harn.triggers.routing import NO_RAMPS, Ramp, share_of
from harn.waiting import InThread, shield

log = Logger()

INTERVAL = 1.0
"""Seconds between two replacements that only tell of retired versions."""

_encoder = msgspec.json.Encoder()

NO_FIGURES = Figures()
"""Of triggers that nothing has happened to."""


@frozen(kw_only=True)
class ServerFacts:
    """
    The constant facts of a running server.

    :ivar host: the bound address, and ``port`` the real port.
    :ivar manifest_path: absolute; so is ``state_dir``.
    :ivar started_at: seconds, Unix.
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


@frozen(kw_only=True)
class ServerState:
    """
    The changing state of a running server.

    :ivar pinned: the live generation took the place of files that are not to be adopted; see `harn.reload.pin`.
    :ivar bindings: every live and draining version; ``ramps``: by trigger id, those that run.
    :ivar counts: by the key of a version; ``figures``: of each trigger. ``paused``: ids of triggers, or `ALL`.
    :ivar circuits: by trigger id, the state of each circuit.
    :ivar last_reload: None before the first.
    :ivar stopped_at: seconds, Unix; None while it runs.
    """

    generation: int
    digest: str
    pinned: bool
    bindings: Iterable[BindingVersion]
    counts: Mapping[str, VersionCounts]
    figures: Figures = NO_FIGURES
    paused: Collection[str] = ()
    circuits: Mapping[str, str] = {}
    ramps: Mapping[str, Ramp] = NO_RAMPS
    last_reload: ReloadReport | None = None
    stopped_at: float | None = None


def describe(facts: ServerFacts, state: ServerState) -> dict[str, Any]:
    """Make the document."""
    bind = Bind(facts.host, facts.port)
    bindings, ramps = list(state.bindings), state.ramps
    counts, figures, is_all_paused = state.counts, state.figures, ALL in state.paused
    replaced = {ramp.stable for ramp in ramps.values()}  # a trigger on a ramp is in force once
    in_force = (binding for binding in bindings if binding.state == ACTIVE and binding not in replaced)
    providers = Counter(binding.spec.provider for binding in in_force)
    return {
        "status": RUNNING if state.stopped_at is None else STOPPED,
        "harn_version": harn.__version__,
        "role": facts.role,
        "pid": facts.pid,
        "bind": str(bind),
        "listener_url": bind.url(tls=facts.tls),
        "manifest_path": facts.manifest_path,
        "state_dir": facts.state_dir,
        "started_at": rfc3339(facts.started_at),
        "stopped_at": None if state.stopped_at is None else rfc3339(state.stopped_at),
        "secret_provider_chain": facts.secret_provider_chain,
        "event_log_backend": facts.event_log_backend,
        "event_log_location": facts.event_log_location,
        "generation": state.generation,
        "digest": state.digest,
        "pinned": state.pinned,
        "last_reload": None if state.last_reload is None else describe_reload(state.last_reload),
        "connectors": sorted(providers),
        "activations": [{"provider": provider, "binding_count": providers[provider]} for provider in sorted(providers)],
        "triggers": [
            entry(
                binding,
                counts.get(binding.key, NO_COUNTS),
                figures.of(binding.id),
                _share_on_ramp(binding, ramps),
                is_all_paused or binding.id in state.paused,
                state.circuits.get(binding.id),
            )
            for binding in bindings
        ],
    }


def describe_reload(report: ReloadReport) -> dict[str, Any]:
    """Make the entry ``last_reload``."""
    return {
        "source": report.source,
        "actor": report.actor,
        "status": report.status,
        "at": rfc3339(report.at),
        "error": report.error,
    }


def _share_on_ramp(binding: BindingVersion, ramps: Mapping[str, Ramp]) -> float | None:
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
    Make the entry of one version, with the figures of its trigger; by position, since there may be ten thousand.

    :param share: of its trigger's new deliveries (0 to 1); None leaves it out.
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
    """Return a time (seconds, Unix) as documents have it."""
    return None if at is None else rfc3339(at)


def encode_document(document: Mapping[str, Any]) -> bytes:
    """Write the document for people, too: a line for each value, and one for each of perhaps ten thousand triggers."""
    rest = {key: value for key, value in document.items() if key != "triggers"}
    head = msgspec.json.format(msgspec.json.encode(rest), indent=2).removesuffix(b"\n}")
    lines = _encoder.encode_lines(document.get("triggers", ())).rstrip(b"\n").replace(b"\n", b",\n    ")
    triggers = b"[\n    " + lines + b"\n  ]" if lines else b"[]"
    return head + b',\n  "triggers": ' + triggers + b"\n}\n"


def replace_file(path: str, document: Any) -> None:
    """
    Put ``document`` in the place of the file. Blocks.

    Not synced: the file describes a running server, and after a power failure there is none.

    :raises OSError: the file is as it was.
    """
    data = encode_document(document)
    beside = path + ".tmp"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # one that a crash left may have another
            file.write(data)
        os.replace(beside, path)
    except OSError:
        if os.path.exists(beside):
            os.unlink(beside)
        raise


def stamp_of(path: str) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced or written to; None when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class StateFileKeeper(TimerService):
    """Looks every second whether the state file is still the one that this server wrote; see `StateFile.keep`."""

    def __init__(self, clock: IReactorTime, state_file: StateFile) -> None:
        super().__init__(INTERVAL, lambda: Deferred.fromCoroutine(state_file.keep()))  # type: ignore[no-untyped-call]
        self.clock: IReactorTime = clock


class StateFile:
    """
    The file, replaced with what the function that ``document`` gives at that moment makes, in the thread.

    Replacements follow one another, so that the newest is what stays.

    :ivar is_ours: False while another program's is there, which is left alone.
    """

    def __init__(
        self, path: str, clock: IReactorTime, in_thread: InThread, document: Callable[[], Callable[[], Any]]
    ) -> None:
        self.path = path
        self.is_ours = True
        self._clock = clock
        self._in_thread = in_thread
        self._document = document
        self._lock = DeferredLock()
        self._later: IDelayedCall | None = None
        self._written_at = float("-inf")
        self._stamp: tuple[int, ...] | None = None  # of the file as it was written last
        self._is_in_trouble = False

    async def save(self) -> None:
        """
        Replace the file now.

        It is written also when the waiting is cancelled: two threads never write at once.

        :raises OSError: it could not be written; it is as it was.
        """
        await shield(self._replace(), self._not_written)

    def _not_written(self, failure: Failure) -> None:
        log.failure("the state file {path} could not be written", failure, path=self.path)

    async def _replace(self) -> None:
        """Replace the file once those before have done so."""
        await self._lock.acquire()
        try:
            if not self.is_ours:
                return
            self._written_at = self._clock.seconds()
            if self._later is not None:  # this write includes it
                self._later.cancel()
                self._later = None
            make = self._document()

            def replace() -> None:
                replace_file(self.path, make())
                self._stamp = stamp_of(self.path)

            await self._in_thread(replace)
        finally:
            self._lock.release()

    async def keep(self) -> None:
        """Replace the file if another program removed or changed it; trouble is logged once."""
        kept: list[bool] = []
        await self._lock.acquire()
        try:
            # Compared before the next replacement may begin, which changes both.
            await self._in_thread(lambda: kept.append(self._stamp in (None, stamp_of(self.path))))
        finally:
            self._lock.release()
        if not self.is_ours or kept == [True]:
            return
        try:
            await self.save()
        except OSError as error:
            if not self._is_in_trouble:
                log.warn("the state file {path} is lost: {why}; commands need --admin-url", path=self.path, why=error)
            self._is_in_trouble = True
        else:
            self._is_in_trouble = False
            log.warn("the state file {path} was removed or changed; it is written again", path=self.path)

    def save_soon(self) -> None:
        """Replace the file within `INTERVAL`, once for all that ask meanwhile; a failure is logged."""
        if self._later is None:
            wait = max(0.0, self._written_at + INTERVAL - self._clock.seconds())
            self._later = self._clock.callLater(wait, self._save_later)

    async def close(self) -> None:
        """Plan nothing more, and wait for what is being written."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        await self._lock.acquire()
        self._lock.release()

    def _save_later(self) -> None:
        self._later = None
        Deferred.fromCoroutine(self.save()).addErrback(
            lambda failure: log.failure("the state file {path} cannot be written", failure, path=self.path)
        )
