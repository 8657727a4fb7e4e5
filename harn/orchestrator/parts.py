"""Everything that one server is made of, put together and not yet started; the few moves that concern several parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.dispatch.dispatcher import Dispatcher
from harn.errors import GenerationUnknown
from harn.listener.endpoint import Bind, Listening, listen
from harn.listener.site import HarnSite
from harn.listener.tls import TlsContext
from harn.manifest.model import OrchestratorSettings
from harn.options import ServeOptions
from harn.orchestrator.process import connections_within, open_file_limit, open_files
from harn.orchestrator.publish import Publisher
from harn.orchestrator.readiness import DRAINING, Readiness
from harn.orchestrator.recovery import Recovery
from harn.orchestrator.state_file import ServerFacts, ServerState, describe
from harn.reload.coordinator import Coordinator
from harn.reload.drain import Drains
from harn.reload.inputs import Inputs
from harn.reload.numbers import LastGeneration, VersionNumbers
from harn.reload.report import PREVIOUS, ReloadReport
from harn.server import Services
from harn.store.interfaces import IStore
from harn.triggers.registry import Registry

log = Logger(namespace="harn")

FEW = 100
"""Connections below which the limit of them is worth a warning."""
FAREWELL = 5.0
"""Seconds that an idle connection may wait for one more request when another process takes the new ones."""
TRUNCATED = (
    "drain truncated ({reason}): {dispatcher_in_flight} running, {dispatcher_queued} queued and"
    " {dispatcher_retry_queue_depth} waiting for a retry stay for the next server"
)
"""What a shutdown logs that could not finish all; the counts are those of `Parts.in_hand`."""


@define(kw_only=True, eq=False)
class Parts:
    """
    :ivar interpreters: a service that is an ``IInterpreters``.
    :ivar services: run as long as the server.
    :ivar background: services that run while the server serves: retention, heartbeat, watcher.
    :ivar listening: the open port, once there is one.
    :ivar wall: the time of day, for stamps.
    :ivar stopped_at: when it stopped (seconds, Unix); None while it runs.
    """

    reactor: Any
    options: ServeOptions
    store: IStore
    registry: Registry
    interpreters: Any
    drains: Drains
    dispatcher: Dispatcher
    coordinator: Coordinator
    site: HarnSite
    recovery: Recovery
    readiness: Readiness
    publisher: Publisher
    services: Services
    background: Services
    wall: WallTime
    tls: TlsContext | None = None
    listening: Listening | None = None
    started_at: float = 0.0
    stopped_at: float | None = None

    @property
    def settings(self) -> OrchestratorSettings:
        """``[orchestrator]`` of the live generation; the defaults before there is one."""
        live = self.coordinator.current
        return OrchestratorSettings() if live is None else live.inputs.manifest.orchestrator

    @property
    def has_credentials(self) -> bool:
        """Tell whether anybody can use the admin API."""
        live = self.coordinator.current
        return live is not None and live.inputs.credentials.configured

    @property
    def status(self) -> str:
        """Say in one line what serves."""
        return f"generation {self.coordinator.generation} serves"

    async def first_generation(self, *, waits: bool = False) -> ReloadReport:
        """
        Build and adopt the first generation, under the numbers that the store remembers.

        With ``--last-good``, and files that are broken, that is the last one that served.

        :param waits: it does not serve yet; see `Coordinator.start`.
        """
        self.started_at = self.wall.seconds()
        numbers = VersionNumbers(await self.store.latest_bindings())
        last = await LastGeneration.of(self.store)
        report = await self.coordinator.start(numbers, last.number, last.digest, waits=waits)
        if report.ok or not self.options.last_good:
            return report
        return await self._last_good(report, numbers, last, waits=waits)

    async def _last_good(
        self, broken: ReloadReport, numbers: VersionNumbers, last: LastGeneration, *, waits: bool
    ) -> ReloadReport:
        """Start from the last generation that served; where there is none, what is broken is all there is to say."""
        reason = f"the files are broken: {broken.error}"
        try:
            report = await self.coordinator.start(
                numbers, last.number, last.digest, recall=PREVIOUS, reason=reason, waits=waits
            )
        except GenerationUnknown as error:
            log.error("--last-good: {why}", why=str(error), announce=True)
            return broken
        if not report.ok:
            log.error("--last-good: the last generation cannot serve: {why}", why=report.error, announce=True)
            return broken
        log.warn(
            "--last-good: generation {generation} serves (the content of {recalled}), not what the files say: {why}",
            generation=report.generation,
            recalled=report.recalled,
            why=broken.error,
            announce=True,
        )
        return report

    async def recover(self, limit: int, leaving: int | None = None, gone: int | None = None) -> int:
        """
        Take over what an earlier server left unfinished, unless the manifest leaves that to an operator.

        :param leaving: the incarnation of one that still runs and ends what it has; ``gone`` of one whose process has
            just ended.
        """
        self.recovery.leaving, self.recovery.gone = leaving, gone
        if self.settings.recover == "auto":
            return await self.recovery.automatic(limit)
        return await self.recovery.count()

    async def open_port(self, inherited: int | None = None) -> str:
        """
        Listen; give the URL.

        :param inherited: the descriptor of a socket to listen on, whatever the options say.
        :raises ListenerUnusable: with a message that says what to do.
        """
        options, live = self.options, self.coordinator.current
        if live is not None and live.inputs.certificate is not None:
            self.tls = TlsContext(live.inputs.certificate)
        limit = self.site.connection_limit
        bind = Bind(options.host, options.port)
        self.listening = listen(self.reactor, bind, self.site, self.tls, inherited, limit=limit)
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

    def show_certificate(self, inputs: Inputs) -> None:
        """Show the certificate of a new generation from the next handshake on."""
        if self.tls is not None:
            self.tls.replace(inputs.certificate)

    def close_port(self) -> Deferred[Any] | None:
        """Listen no more."""
        if self.listening is None:
            return None
        return maybeDeferred(self.listening.port.stopListening)

    def retire(self) -> Deferred[None]:
        """Leave new connections to another process; fires when ours are served out."""
        if self.listening is not None:
            self.listening.pause()
        return self.site.retire(min(FAREWELL, self.options.shutdown_timeout / 2.0))

    def serves(self) -> None:
        """Be ready."""
        self.readiness.phase = None

    def stops(self) -> None:
        """Be ready no more."""
        self.readiness.phase = DRAINING

    def drain_limits(self) -> tuple[int, float]:
        """How many deliveries a shutdown still begins, and for how many seconds; a flag wins over the manifest."""
        options, drain = self.options, self.settings.drain
        items = drain.max_items if options.drain_max_items is None else options.drain_max_items
        seconds = drain.deadline_seconds if options.drain_deadline is None else options.drain_deadline
        return items, seconds

    def in_hand(self) -> dict[str, Any]:
        """Count what is under way."""
        return {
            "http_in_flight": self.site.in_flight,
            "dispatcher_in_flight": len(self.dispatcher.in_progress),
            "dispatcher_queued": self.dispatcher.queued,
            "dispatcher_retry_queue_depth": sum(self.registry.waiting.values()),
        }

    def identity(self) -> dict[str, Any]:
        """Say which server this is, for records of its life."""
        live = self.coordinator.current
        return {
            "bind": "" if self.listening is None else str(self.listening.bind),
            "manifest": self.options.manifest,
            "role": self.options.role,
            "state_dir": self.options.state_dir,
            "pid": os.getpid(),
            "generation": self.coordinator.generation,
            "trigger_count": 0 if live is None else len(live.bindings),
            "tls_enabled": self.tls is not None,
        }

    def snapshot(self) -> Callable[[], dict[str, Any]]:
        """
        Note how things stand, and give what makes the state file's document of it.

        That may be called in a thread: it takes a while for ten thousand triggers.
        """
        live, bound = self.coordinator.current, self.listening
        facts = ServerFacts(
            host=self.options.host if bound is None else bound.bind.host,
            port=self.options.port if bound is None else bound.bind.port,
            tls=self.tls is not None,
            manifest_path=self.options.manifest,
            state_dir=self.options.state_dir,
            started_at=self.started_at,
            pid=os.getpid(),
            secret_provider_chain="" if live is None else live.inputs.secret_chain,
            event_log_backend=self.store.backend,
            event_log_location=self.store.location,
            role=self.options.role,
        )
        state = ServerState(
            generation=self.coordinator.generation,
            digest="" if live is None else live.digest,
            bindings=list(self.registry),
            counts=self.registry.counts,
            ramps=self.registry.ramps,
            last_reload=self.coordinator.last,
            stopped_at=self.stopped_at,
        )
        return partial(describe, facts, state)
