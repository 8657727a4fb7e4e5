"""The core of every server, before its features: the store, the interpreters, metrics, logs and external inputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from harn.clocks import WallClock
from harn.lifecycle import Lifecycle
from harn.listener.tls import load_context
from harn.model.references import parse_secret_reference
from harn.observability.logs import threshold
from harn.observability.subscribers import Counting, log_deliveries
from harn.options import ServeOptions
from harn.orchestrator.running import state_path
from harn.orchestrator.state_directory import read_or_make_key
from harn.reload.inputs import ExternalInputs
from harn.reload.reader import FileReader
from harn.reload.settling import SETTLE
from harn.secrets.chain import SecretChain
from harn.server import Runtime, Server, SettingsChanged
from harn.store.lock import StateDirectoryLock
from harn.store.sqlite.store import SQLiteStore

DATABASE = "events.sqlite"
EVENT_LOG_AWAY = "event log away"


def make_server(
    options: ServeOptions, reactor: Any, environ: Mapping[str, str], lock: StateDirectoryLock | None = None
) -> Server:
    """
    Make a server without features.

    :param lock: of the state directory; checked with each heartbeat.
    """
    wall, lifecycle = WallClock(), Lifecycle()
    store = SQLiteStore.at(
        os.path.join(options.state_dir, DATABASE),
        reactor,
        wall=wall,
        guard=None if lock is None else lock.check,
        evidence=(state_path(options.state_dir),),
    )
    interpreters = make_interpreters(options, reactor, environ, lifecycle)
    server = Server(Runtime(reactor, wall), options, environ, lifecycle, store, interpreters)
    server.readiness.add(EVENT_LOG_AWAY, store.available)
    server.services.add_closing(store.close)
    Counting(server.metrics, lifecycle)
    log_deliveries(lifecycle)
    follow_log_level(server, threshold.change)
    server.add(make_surroundings(options, environ, read_or_make_key(options.state_dir)))
    return server


def follow_log_level(server: Server, change: Callable[[str], None]) -> None:
    """Call ``change`` with the log level of each generation, unless the options say one."""
    if server.options.log_level is None:
        server.lifecycle.subscribe(SettingsChanged, lambda event: change(event.settings.log_level))


def make_interpreters(options: ServeOptions, reactor: Any, environ: Mapping[str, str], lifecycle: Lifecycle) -> Any:
    """Make the service that runs handlers, in the way that the options say."""
    secrets = secret_reader(FileReader(reactor, WallClock()), environ)
    if options.vm == "inline":
        from harn.vm.inline import InlineInterpreters

        return InlineInterpreters(reactor, secrets)
    from harn.vm.process import ChildInterpreters

    return ChildInterpreters(reactor, secrets, lifecycle)


def secret_reader(files: FileReader, environ: Mapping[str, str]) -> Callable[[str, str], Deferred[bytes]]:
    """
    Return the function by which handlers read a secret: ``read(trigger_id, reference) -> Deferred[bytes]``.

    :param files: reads them, and nothing else: one in a file that hangs keeps only other secrets waiting.
    """

    def resolve(text: str) -> bytes:
        return SecretChain.from_environment(environ).resolve(parse_secret_reference(text))

    def read(trigger_id: str, reference: str) -> Deferred[bytes]:
        reading: Deferred[bytes] = files.read(resolve, reference, what=f"secret {reference}")
        return reading

    return read


def make_surroundings(options: ServeOptions, environ: Mapping[str, str], hash_key: bytes) -> ExternalInputs:
    """Return what each reload reads beside the manifest and its modules."""
    certificate, key = options.cert, options.key
    if certificate is None or key is None:
        return ExternalInputs(environ=environ, hash_key=hash_key, settle=SETTLE)
    return ExternalInputs(
        environ=environ,
        certificate_files=(certificate, key),
        load_certificate=lambda: load_context(certificate, key),
        hash_key=hash_key,
        settle=SETTLE,
    )
