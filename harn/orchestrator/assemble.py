"""
Puts a server together: `make_service` for twistd and the command line.

Nothing starts here, no thread, child or socket: twistd forks after it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from harn.model.display import visible
from harn.options import ServeOptions
from harn.orchestrator.core import make_server
from harn.orchestrator.features import features
from harn.orchestrator.service import Launch, Orchestrator
from harn.orchestrator.terminal import Terminal
from harn.server import Server
from harn.store.lock import StateDirectoryLock
from harn.systemd.notify import ServiceManager, Watchdog
from harn.upgrade.old_process import OldProcess
from harn.upgrade.program import Inheritance, Program


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

    def put_together() -> Server:
        return assemble(options, reactor, environ, service_manager, lock, takes_over=inheritance is not None)

    return Orchestrator(reactor, lock, put_together, say_error, launch)


def assemble(
    options: ServeOptions,
    reactor: Any,
    environ: Mapping[str, str],
    service_manager: ServiceManager | None = None,
    lock: StateDirectoryLock | None = None,
    *,
    takes_over: bool = False,
) -> Server:
    """
    Put a server together; its state directory is locked already. Nothing is started.

    :param service_manager: reports reloads to the service manager.
    :param lock: of the state directory.
    :raises OSError: the state directory cannot be used.
    """
    server = make_server(options, reactor, environ, lock)
    server.add(ServiceManager(reactor, None) if service_manager is None else service_manager)
    for install in features(options, takes_over=takes_over):
        install(server)
    server.lifecycle.seal()
    return server
