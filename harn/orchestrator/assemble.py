"""
Composition of a server: its core (store, interpreters, metrics, logs, external inputs), then its features; and the
check of a manifest without a server.

No thread, child process or socket is started here: twistd forks afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from secrets import token_bytes
from typing import Any

from attrs import evolve
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from zope.interface import implementer

from harn.clocks import WallClock
from harn.connectors.catalog import Catalog
from harn.destinations.catalog import DestinationCatalog
from harn.errors import ManifestInvalid, StageFailed
from harn.lifecycle import Lifecycle, ServerStarted
from harn.listener.tls import CertificateFiles
from harn.model.problem import Problem
from harn.model.references import parse_secret_reference
from harn.observability.logs import Threshold, threshold
from harn.observability.subscribers import Counting, log_deliveries
from harn.options import ServeOptions
from harn.orchestrator.features import features
from harn.orchestrator.state_directory import read_or_make_key
from harn.orchestrator.stores import home_of, make_store
from harn.reload.build import Builder
from harn.reload.connections import Connections
from harn.reload.coordinator import DEFAULT_TIMEOUT
from harn.reload.inputs import ExternalInputs
from harn.reload.reader import FileReader
from harn.reload.runs import Stages
from harn.reload.targets import Resolution, Targets
from harn.secrets.providers import SecretChain
from harn.server import Install, Runtime, Server, SettingsChanged
from harn.store.lock import StateDirectoryLock
from harn.systemd import ServiceManager
from harn.vm.interfaces import ISecrets
from harn.vm.spare import Spare

EVENT_LOG_AWAY = "event log away"


def make_server(
    options: ServeOptions,
    reactor: Any,
    environ: Mapping[str, str],
    lock: StateDirectoryLock | None = None,
    spare: Spare | None = None,
) -> Server:
    """
    Make a server without features.

    :param lock: the lock on the state directory; checked with each heartbeat.
    :param spare: the spare interpreter, if one runs already.
    """
    wall, lifecycle = WallClock(), Lifecycle()
    hash_key = read_or_make_key(options.state_dir)
    store = make_store(options, reactor, environ, wall, lock, home_of(hash_key))
    store.follow(lifecycle)
    interpreters = make_interpreters(options, reactor, environ, lifecycle, spare)
    server = Server(Runtime(reactor, wall), options, environ, lifecycle, store, interpreters)
    server.readiness.add(EVENT_LOG_AWAY, store.available)
    server.services.add_closing(store)
    Counting(server.metrics, lifecycle)
    log_deliveries(lifecycle)
    follow_log_level(server, threshold)
    server.add(make_surroundings(options, environ, hash_key))
    return server


def follow_log_level(server: Server, level: Threshold) -> None:
    """Set the minimum log level that the settings of each generation name, unless the options say one."""
    if server.options.log_level is None:
        server.lifecycle.subscribe(SettingsChanged, lambda event: level.change(event.settings.log_level))


def make_interpreters(
    options: ServeOptions, reactor: Any, environ: Mapping[str, str], lifecycle: Lifecycle, spare: Spare | None = None
) -> Any:
    """Make the service that runs handlers, as the options say; ``spare`` is a spare interpreter that runs already."""
    secrets = SecretReader(FileReader(reactor, WallClock()), environ)
    if options.vm == "inline":
        from harn.vm.inline import InlineInterpreters

        return InlineInterpreters(reactor, secrets)
    from harn.vm.process import ChildInterpreters

    interpreters = ChildInterpreters(reactor, secrets, lifecycle, spare)
    interpreters.spare.waits = True
    lifecycle.subscribe(ServerStarted, lambda event: interpreters.spare.fill())
    return interpreters


@implementer(ISecrets)
class SecretReader(Struct, frozen=True):
    """
    Reads the secrets that handlers ask for.

    :ivar files: reads secrets and nothing else, so that a secret in a file that hangs delays only other secrets.
    """

    files: FileReader
    environ: Mapping[str, str]

    def read(self, trigger_id: str, reference: str) -> Deferred[bytes]:
        """See `ISecrets.read`."""
        reading: Deferred[bytes] = self.files.read(self._resolve, reference, what=f"secret {reference}")
        return reading

    def _resolve(self, reference: str) -> bytes:
        return SecretChain.from_environment(self.environ).resolve(parse_secret_reference(reference))


def make_surroundings(options: ServeOptions, environ: Mapping[str, str], hash_key: bytes) -> ExternalInputs:
    """Return the inputs that each reload reads in addition to the manifest and its modules."""
    cert, key = options.cert, options.key
    files = None if cert is None or key is None else CertificateFiles(cert, key)
    return ExternalInputs(environ=environ, certificate=files, hash_key=hash_key, settle=None)


class Assembly(Struct, frozen=True, kw_only=True):
    """
    Everything that a server is put together from when it starts.

    :ivar service_manager: reports reloads to the service manager.
    :ivar lock: the lock on the state directory.
    :ivar spare: the spare interpreter, if one runs already.
    :ivar further: the ``install`` functions of features that only one command adds.
    """

    options: ServeOptions
    reactor: Any
    environ: Mapping[str, str]
    service_manager: ServiceManager | None = None
    lock: StateDirectoryLock | None = None
    spare: Spare | None = None
    takes_over: bool = False
    further: Sequence[Install] = ()

    def make(self) -> Server:
        """
        Put a server together without starting it. The caller has locked the state directory.

        :raises OSError: the state directory cannot be used.
        """
        server = make_server(self.options, self.reactor, self.environ, self.lock, self.spare)
        manager = self.service_manager
        server.add(ServiceManager(self.reactor, None) if manager is None else manager)
        for install in (*features(self.options, takes_over=self.takes_over), *self.further):
            install(server)
        server.lifecycle.seal()
        return server


class Checked(Struct, frozen=True):
    """
    The result of a check: the problems, and how much was checked.

    :ivar problems: every problem of the first stage that had any, and the problems of secrets.
    :ivar triggers: the number of triggers that were checked.
    :ivar modules: the number of modules that were checked.
    :ivar warnings: problems that do not prevent serving.
    """

    problems: tuple[Problem, ...]
    triggers: int
    modules: int
    warnings: tuple[str, ...] = ()


async def check_manifest(
    reactor: Any, options: ServeOptions, environ: Mapping[str, str], *, with_secrets: bool = True
) -> Checked:
    """
    Check the manifest that ``options`` name, with the secrets in ``environ``.

    :param with_secrets: if False, secrets and credentials are not read, and only parts that need none are prepared.
    """
    found = await _check_stages(reactor, options, environ, with_secrets)
    if not with_secrets or not found.problems or found.triggers:
        return found
    # A secret that is not set ends the check before the code is resolved; check the rest without secrets.
    rest = await _check_stages(reactor, options, environ, False)
    return replace(found, problems=tuple(dict.fromkeys((*found.problems, *rest.problems))))


async def _check_stages(reactor: Any, options: ServeOptions, environ: Mapping[str, str], with_secrets: bool) -> Checked:
    interpreters = make_interpreters(options, reactor, environ, Lifecycle())
    interpreters.startService()
    builder = Builder(
        files=FileReader(reactor, WallClock()),
        manifest_path=options.manifest,
        manifest_name=options.manifest_name,
        external=evolve(make_surroundings(options, environ, token_bytes(32)), with_secrets=with_secrets),
        resolution=Resolution(interpreters),
        connections=Connections(reactor, Catalog.discover()),
        targets=Targets(reactor, DestinationCatalog.discover()),
    )
    stages = Stages(reactor, DEFAULT_TIMEOUT, builder)
    triggers = modules = 0
    warnings: tuple[str, ...] = ()
    try:
        async with AsyncExitStack() as stack:
            _, inputs = await builder.read_settled(stages, None)
            triggers, modules = len(inputs.manifest.triggers), len(inputs.bundle.modules)
            warnings = inputs.warnings
            prepared = await stages.run("resolve", builder.resolve(inputs, None, stack, afresh=True))
            await stages.run("prepare", builder.connect(prepared, None, stack))
            await stages.run("prepare", builder.aim(prepared, stack))
        problems: tuple[Problem, ...] = ()
    except ManifestInvalid as error:
        problems = error.problems
    except StageFailed as error:
        problems = error.problems or (Problem(file=options.manifest_name, message=str(error)),)
    finally:
        await builder.resolution.pool.idle()
        await builder.connections.pool.idle()
        await builder.targets.pool.idle()
        await interpreters.stopService()
        builder.files.close()
    return Checked(problems, triggers, modules, warnings)
