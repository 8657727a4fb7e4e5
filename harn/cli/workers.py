"""``harn serve --workers``: the supervising process of several servers that share a port and a store."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from harn.auth.credentials import write_token
from harn.cli.serve import begin_process, run_service
from harn.errors import HarnError
from harn.listener.endpoint import Bind, inherited_socket, open_socket
from harn.observability.outputs import outputs
from harn.options import ServeOptions
from harn.orchestrator.process import ControllingTerminal, Signals
from harn.orchestrator.state_directory import make_private
from harn.orchestrator.stores import address_of, note_address
from harn.store.lock import StateDirectoryLock, refuse_held
from harn.systemd import ServiceManager, Watchdog, passed_descriptor, silence_limit
from harn.upgrade.program import VARIABLE as HANDOVER
from harn.upgrade.program import Program
from harn.workers.directory import SharedDirectory, wait_for_earlier
from harn.workers.process import Launcher
from harn.workers.supervisor import Limits, Supervisor


class WorkersRefused(HarnError):
    """Several workers cannot serve with these options; the message says what to do."""


def run_workers(options: ServeOptions, environ: Mapping[str, str] = os.environ) -> int:
    """
    Serve with several workers; return the process's exit status.

    :raises WorkersRefused: the store is not one that servers share, or there are not as many ports as workers.
    :raises StateDirectoryUnusable: another server, or worker of one, holds the state directory.
    :raises ListenerUnusable: the port cannot be opened.
    """
    refuse_lone_store(options)
    refuse_ports(options)
    refuse_held(options.state_dir)
    passed = passed_descriptor(os.environ)
    wait_for_earlier(options.state_dir)
    lock = StateDirectoryLock(options.state_dir)
    lock.acquire()
    prepare_directory(options)
    bind = Bind(options.host, options.port)
    with open_socket(bind) if passed is None else inherited_socket(passed) as listening:
        from twisted.internet import reactor

        begin_process(options, reactor)
        service_manager = ServiceManager.of(reactor, environ)
        terminal = ControllingTerminal.of_process(reactor)
        silence = silence_limit(environ)
        program = Program.of(sys.orig_argv, sys.executable, os.getcwd())
        supervisor: Any = Supervisor(
            reactor,
            Launcher(reactor, program, environ, listening.fileno(), silence),
            Limits(options.workers, options.shutdown_timeout, silence),
            SharedDirectory(options.state_dir),
            service_manager,
            terminal,
        )
        Signals(reactor, supervisor, AllLogs(supervisor)).install()
        for service in (terminal, Watchdog.of(reactor, service_manager, environ)):
            if service is not None:
                service.startService()  # type: ignore[no-untyped-call]
        status = run_service(supervisor, reactor)
    lock.release()
    return status


def refuse_lone_store(options: ServeOptions) -> None:
    """
    Refuse SQLite, which one process writes to. A manifest that cannot be read is for the first worker to report.

    :raises WorkersRefused: the store is SQLite, or this is to take over from a lone server.
    """
    if os.environ.pop(HANDOVER, None) is not None:
        raise WorkersRefused("a lone server cannot hand over to --workers; stop it, then start again")
    if address_of(options) is not None:
        return
    try:
        with open(options.manifest, "rb") as file:
            tomllib.load(file)
    except (OSError, ValueError):
        return
    raise WorkersRefused(
        f"--workers {options.workers} needs a store that several servers share, and this one is SQLite in"
        f' {options.state_dir}; set [orchestrator] store = "postgresql://..." in {options.manifest_name}, or leave out'
        " --workers"
    )


def refuse_ports(options: ServeOptions) -> None:
    """
    Refuse a port of the own pages that is too high: each worker has the next one.

    :raises WorkersRefused: the last worker would have none.
    """
    asked = options.admin_bind
    highest = 65536 - options.workers
    if isinstance(asked, tuple) and asked[1] > highest:
        raise WorkersRefused(
            f"--admin-bind must have a port of at most {highest} for {options.workers} workers, each of which has the"
            f" next one, got {asked[1]}"
        )


def prepare_directory(options: ServeOptions) -> None:
    """Write the token that all workers accept, and the address of the store, into the state directory."""
    write_token(options.state_dir)
    address = address_of(options)
    if address is not None:
        note_address(options.state_dir, address)
    make_private(options.state_dir)


class AllLogs(Struct, frozen=True):
    """The logs of this process and of its workers."""

    supervisor: Any

    def reopen(self) -> None:
        """See `ILogs.reopen`."""
        outputs.reopen()
        self.supervisor.reopen_logs()

    def flush(self, limit: float) -> object:
        """See `ILogs.flush`."""
        return outputs.flush(limit)
