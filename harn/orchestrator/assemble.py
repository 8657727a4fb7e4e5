"""
The only composer: every part of a server is made here, and given what it needs.

Nothing starts here, no thread, child or socket: twistd forks after `make_service`.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from harn.auth.token import read_token, write_token
from harn.clocks import WallClock, WallTime
from harn.connectors.catalog import Catalog
from harn.connectors.model import NormalizedEvent
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.intake import Arrival, Intake
from harn.errors import GateShut
from harn.history.replay import Replayer
from harn.lifecycle import Lifecycle, Received, VersionEnded
from harn.listener.admission import Admission
from harn.listener.ingest import Ingest
from harn.listener.pages import make_pages
from harn.listener.push import Push
from harn.listener.site import HarnSite
from harn.listener.tls import load_context
from harn.model.references import parse_secret_reference
from harn.model.visible import visible
from harn.observability.delivery_log import log_deliveries
from harn.observability.metrics import Metrics
from harn.observability.trigger_metrics import TriggerMetrics
from harn.options import ServeOptions
from harn.orchestrator.admin_api import mount_admin_api
from harn.orchestrator.hash_key import read_or_make_key
from harn.orchestrator.launch import Launch
from harn.orchestrator.notices import ReloadNotices
from harn.orchestrator.parts import Parts
from harn.orchestrator.planning import Planner
from harn.orchestrator.process import Freezer
from harn.orchestrator.publish import Publisher
from harn.orchestrator.readiness import Readiness
from harn.orchestrator.reaping import OrphanReaper, is_parent_of_orphans
from harn.orchestrator.recovery import Recovery
from harn.orchestrator.running import state_path
from harn.orchestrator.service import Orchestrator
from harn.orchestrator.settings import LiveSettings
from harn.orchestrator.state_file import StateFile, StateFileKeeper
from harn.orchestrator.terminal import Terminal
from harn.orchestrator.watching import make_watcher
from harn.reload.build import Builder
from harn.reload.connections import Connections
from harn.reload.coordinator import Coordinator
from harn.reload.drain import Drains
from harn.reload.generation import Candidate
from harn.reload.hooks import Hooks
from harn.reload.inputs import Surroundings
from harn.reload.reader import FileReader
from harn.reload.resolution import Resolution
from harn.reload.revive import Reviver
from harn.reload.settling import SETTLE
from harn.rollout.trials import Deeds, Trials
from harn.secrets.chain import SecretChain
from harn.server import Services
from harn.store.heartbeat import HeartbeatService
from harn.store.lock import StateDirectoryLock
from harn.store.retention import RetentionService
from harn.store.sqlite.store import SQLiteStore
from harn.systemd.notify import ServiceManager, Watchdog
from harn.triggers.registry import Registry
from harn.upgrade.old_process import OldProcess
from harn.upgrade.program import Inheritance, Program

log = Logger(namespace="harn")

DATABASE = "events.sqlite"


def make_service(
    options: ServeOptions,
    reactor: Any,
    environ: Mapping[str, str],
    program: Program | None = None,
    inheritance: Inheritance | None = None,
    passed: int | None = None,
) -> Orchestrator:
    """
    Make the server as a service; it is put together when it starts.

    :param program: how it was started, if it may be upgraded in place; ``inheritance`` is of one that was upgraded.
    :param passed: the descriptor of a listening socket that the service manager passed.
    """

    def say_error(message: str) -> None:
        print(visible(f"error: {message}"), file=sys.stderr, flush=True)  # noqa: T201 - for the operator, whatever is logged

    lock = StateDirectoryLock(options.state_dir)
    service_manager = ServiceManager.of(reactor, environ)
    launch = Launch(
        service_manager=service_manager,
        program=program,
        environ=environ,
        old_process=None if inheritance is None else OldProcess(reactor, inheritance),
        passed=passed,
        watchdog=lambda: Watchdog.of(reactor, service_manager, environ),
        terminal=lambda: Terminal.of_process(reactor),
    )

    def put_together() -> Parts:
        return assemble(options, reactor, environ, service_manager, lock, takes_over=inheritance is not None)

    return Orchestrator(reactor, lock, put_together, say_error, launch)


def secret_reader(files: FileReader, environ: Mapping[str, str]) -> Callable[[str, str], Deferred[bytes]]:
    """
    Give the function by which handlers read a secret: ``read(trigger_id, reference) -> Deferred[bytes]``.

    :param files: reads them, and nothing else: one in a file that hangs keeps only other secrets waiting.
    """

    def resolve(text: str) -> bytes:
        return SecretChain.from_environment(environ).resolve(parse_secret_reference(text))

    def read(trigger_id: str, reference: str) -> Deferred[bytes]:
        reading: Deferred[bytes] = files.read(resolve, reference, what=f"secret {reference}")
        return reading

    return read


def make_surroundings(options: ServeOptions, environ: Mapping[str, str], hash_key: bytes) -> Surroundings:
    """Say what each reload reads beside the manifest and its modules."""
    certificate, key = options.cert, options.key
    if certificate is None or key is None:
        return Surroundings(environ=environ, hash_key=hash_key, settle=SETTLE)
    return Surroundings(
        environ=environ,
        certificate_files=(certificate, key),
        load_certificate=lambda: load_context(certificate, key),
        hash_key=hash_key,
        settle=SETTLE,
    )


def make_interpreters(options: ServeOptions, reactor: Any, environ: Mapping[str, str], metrics: Metrics) -> Any:
    """Make the service that runs handlers, in the way that the options say."""
    secrets = secret_reader(FileReader(reactor, WallClock()), environ)
    if options.vm == "inline":
        from harn.vm.inline import InlineInterpreters

        return InlineInterpreters(reactor, secrets)
    from harn.vm.process import ChildInterpreters

    return ChildInterpreters(reactor, secrets, on_restart=metrics.interpreter_restarted)


def make_sink(
    wall: WallTime, registry: Registry, intake: Intake, lifecycle: Lifecycle
) -> Callable[[str, NormalizedEvent], Deferred[None]]:
    """Give the function by which connectors that drive themselves hand over events, through their gates."""

    def sink(trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        binding = registry.active.get(trigger_id)
        if binding is None:
            return fail(GateShut(f"trigger {trigger_id} is not in force; keep this event"))
        ramp = registry.ramps.get(trigger_id)
        versions = (binding,) if ramp is None else ramp.versions
        for version in versions:
            version.lease()
        lifecycle.emit(Received(trigger_id, binding.spec.provider, binding.key if ramp is None else None))
        arrival = Arrival(headers={}, body=event.body or b"", received_at=wall.seconds())
        taking = intake.take(binding, arrival, [event], always_claim=True, ramp=ramp)

        def over(result: Any) -> Any:
            for version in versions:
                version.release()
            return result

        return taking.addBoth(over).addCallback(lambda _: None)

    return sink


def add_gauges(metrics: Metrics, registry: Registry, dispatcher: Dispatcher, drains: Drains) -> None:
    """Show what is under way."""

    def in_flight() -> dict[tuple[str, ...], float]:
        return {(binding.key, binding.state): float(binding.in_flight) for binding in registry}

    def trigger_in_flight() -> dict[tuple[str, ...], float]:
        counts: Counter[tuple[str, ...]] = Counter()
        for binding in registry:
            counts[(binding.id,)] += binding.in_flight
        return {key: float(count) for key, count in counts.items()}

    def shares() -> dict[tuple[str, ...], float]:
        return {(binding.key,): registry.share(binding) for binding in registry.ramping()}

    def attempts() -> dict[tuple[str, ...], float]:
        counts: dict[tuple[str, ...], float] = {}
        for binding in registry.ramping():
            found = registry.counts.of(binding.key)
            counts[(binding.key, "failed")] = float(found.attempts_failed)
            counts[(binding.key, "succeeded")] = float(found.attempted - found.attempts_failed)
        return counts

    metrics.gauge("harn_binding_in_flight", "Leases held on each binding version.", in_flight, ("binding_key", "state"))
    metrics.gauge(
        "harn_binding_share",
        "Share (0 to 1) of new deliveries that each version of a ramping trigger takes.",
        shares,
        ("binding_key",),
    )
    metrics.gauge(
        "harn_binding_attempts",
        "Attempts that ended on each version of a ramping trigger, since the server's start.",
        attempts,
        ("binding_key", "outcome"),
    )
    metrics.gauge("harn_trigger_inflight", "Leases held on each trigger.", trigger_in_flight, ("trigger_id",))
    metrics.gauge(
        "harn_orchestrator_pump_outstanding", "Handlers that run now.", lambda: float(len(dispatcher.in_progress))
    )
    metrics.gauge(
        "harn_orchestrator_pump_backlog", "Ready deliveries held in memory.", lambda: float(dispatcher.queued)
    )
    metrics.gauge(
        "harn_generations_draining", "Generations of which something drains.", lambda: float(len(drains.generations))
    )
    metrics.gauge(
        "harn_retries_waiting", "Deliveries that wait for a retry.", lambda: float(sum(registry.waiting.values()))
    )


def assemble(
    options: ServeOptions,
    reactor: Any,
    environ: Mapping[str, str],
    service_manager: ServiceManager | None = None,
    lock: StateDirectoryLock | None = None,
    *,
    takes_over: bool = False,
) -> Parts:
    """
    Put a server together; its state directory is locked already.

    :param service_manager: reports reloads to the service manager.
    :param lock: of the state directory; checked with each heartbeat.
    :param takes_over: another program serves on it until then, and its token goes on.
    :raises OSError: the state directory cannot be used.
    """

    def in_thread(function: Callable[[], Any]) -> Deferred[Any]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function)

    wall = WallClock()
    metrics = Metrics()
    lifecycle = Lifecycle()
    registry = Registry(lifecycle)
    TriggerMetrics(metrics, lifecycle)
    log_deliveries(lifecycle)
    catalog = Catalog.discover()
    for problem in catalog.problems:
        log.error("{problem}", problem=str(problem))
    path = os.path.join(options.state_dir, DATABASE)
    store = SQLiteStore.at(
        path, reactor, wall=wall, guard=None if lock is None else lock.check, evidence=(state_path(options.state_dir),)
    )
    interpreters = make_interpreters(options, reactor, environ, metrics)
    dispatcher = Dispatcher(reactor, store, registry, lifecycle, random.random, wall=wall)
    intake = Intake(reactor, store, dispatcher.submit, lifecycle)
    admission = Admission(reactor, **admission_defaults(environ), beside=lambda: dispatcher.bytes_in_hand)
    token = (read_token(options.state_dir) if takes_over else None) or write_token(options.state_dir)
    settings = LiveSettings(options=options, admission=admission, dispatcher=dispatcher, token=token)
    ingest = Ingest(reactor, intake, admission, lifecycle, in_thread, settings.current_authenticator)
    push = Push(reactor, intake, admission, lifecycle, in_thread, settings.current_authenticator)
    resolution = Resolution(interpreters)
    readiness = Readiness(store_available=store.available, interpreter_up=resolution.all_up)
    pages = make_pages(metrics, readiness.reasons, in_thread)
    site = HarnSite(reactor, metrics, ingest, push, pages=pages, wall=wall)
    settings.site = site

    hash_key = read_or_make_key(options.state_dir)
    surroundings = make_surroundings(options, environ, hash_key)
    connections = Connections(reactor, catalog, wall)
    files = FileReader(reactor, wall)
    builder = Builder(files, options.manifest, options.manifest_name, surroundings, catalog, resolution, connections)
    state_file = StateFile(state_path(options.state_dir), reactor, in_thread, lambda: parts.snapshot())
    publisher = Publisher(reactor, store, state_file, metrics)
    drains = Drains(reactor, dispatcher.move_on, lifecycle, wall)
    lifecycle.subscribe(VersionEnded, lambda event: state_file.save_soon())
    freezer = Freezer(reactor)

    def adopted(candidate: Candidate) -> None:
        settings.apply(candidate)
        parts.show_certificate(candidate.generation.inputs)
        for trigger_id in (*candidate.plan.added, *candidate.plan.modified):
            metrics.trigger(trigger_id, candidate.generation.bindings[trigger_id].spec.provider)
        freezer.adopted(len(candidate.plan.added) + len(candidate.plan.modified))

    notices = ReloadNotices(ServiceManager(reactor, None) if service_manager is None else service_manager)
    hooks = Hooks(
        adopted=adopted,
        publish=publisher.reload_ended,
        began=notices.began,
        ended=notices.ended,
        describe=Planner(registry, dispatcher, Replayer(store, builder.in_thread), builder.in_thread).describe,
    )
    reviver = Reviver(reactor, store, resolution, registry, wall)
    deeds = Deeds(take_back=dispatcher.take_back, note=publisher.note_soon)
    trials = Trials(reactor, store, registry, lifecycle, deeds, wall)
    settings.needed = trials.needed
    sink = make_sink(wall, registry, intake, lifecycle)
    coordinator = Coordinator(reactor, builder, store, registry, site, drains, sink, hooks, reviver, trials, wall)
    recovery = Recovery(wall, store, reviver, dispatcher, drains, settings.drain_timeout)
    add_gauges(metrics, registry, dispatcher, drains)
    background = Services(reactor)
    background.add(HeartbeatService(reactor, store, wall=wall))
    background.add(RetentionService(reactor, store, settings.retention, wall=wall))
    background.add(StateFileKeeper(reactor, state_file))
    if is_parent_of_orphans():
        background.add(OrphanReaper(reactor))
    if options.watch:
        background.add(make_watcher(files, coordinator, options.manifest, hash_key))
    parts = Parts(
        reactor=reactor,
        options=options,
        store=store,
        registry=registry,
        interpreters=interpreters,
        drains=drains,
        dispatcher=dispatcher,
        coordinator=coordinator,
        site=site,
        recovery=recovery,
        readiness=readiness,
        publisher=publisher,
        services=Services(reactor),
        background=background,
        wall=wall,
    )
    parts.services.add_closing(store.close)
    parts.services.add_closing(publisher.close)
    parts.services.add(interpreters)
    parts.services.add_closing(coordinator.release)
    parts.services.add_closing(coordinator.close)
    parts.services.add_closing(parts.close_port)
    parts.services.add_closing(dispatcher.close)
    parts.services.add_closing(drains.stop)
    mount_admin_api(parts, settings, trials, intake, catalog, builder.in_thread)
    return parts


def admission_defaults(environ: Mapping[str, str]) -> dict[str, float]:
    """Read the environment's admission rates; those that are not set, or make no sense, are off."""
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
