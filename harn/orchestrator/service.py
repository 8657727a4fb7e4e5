"""
The life of one server: the order in which its parts start and end.

The start: lock, store, interpreters, first generation, unfinished deliveries, listener. The end: reloads stop, requests
stop, running deliveries finish within a time limit, and the others stay in the store for the next server. In an upgrade
in place, the new server starts and the old one ends with other steps, so that no request is refused in between.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.api_keys.service import NamedKeys
from harn.circuits.service import Circuits
from harn.dispatch.pauses import Pauses
from harn.errors import HarnError, ShuttingDown
from harn.lifecycle import ServerStarted
from harn.listener.descriptors import raise_open_files
from harn.listener.port import ServerPort
from harn.model.display import visible
from harn.model.problem import Problem
from harn.options import ServeOptions
from harn.orchestrator.assemble import Assembly
from harn.orchestrator.maintenance import set_switch_interval
from harn.orchestrator.process import ENDED_AT_ONCE, ControllingTerminal, ISignalReceiver, Signals, end_at_once
from harn.orchestrator.publish import Publisher
from harn.orchestrator.state_directory import make_private
from harn.orchestrator.steps import (
    UpgradableServer,
    build_first_generation,
    drain,
    end_unserved,
    note_start,
    open_port,
    recover,
)
from harn.reload.coordinator import Coordinator
from harn.reload.report import ReloadReport, ReloadRequest
from harn.server import Install, Server, ended_in_time
from harn.servers.membership import Membership
from harn.store.lock import StateDirectoryLock
from harn.systemd import ServiceManager, Watchdog
from harn.upgrade.interfaces import IServerLife
from harn.upgrade.program import OldProcess, Program
from harn.upgrade.upgrade import NewProcess, Upgrade
from harn.vm.spare import Spare

log = Logger(namespace="harn")


class NotStarted(HarnError):
    """
    The server cannot start; the message is for its operator.

    :ivar problems: the problems of manifest and code, which the message lists too; empty if the reason is another.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems: tuple[Problem, ...] = tuple(problems)


class Launch(Struct, frozen=True):
    """
    The options of this program, and what it inherited at its start.

    :ivar program: the command that started it; None if unknown: then it cannot upgrade in place.
    :ivar environ: the environment of the process; an upgrade starts the new program with it.
    :ivar old_process: the program that it replaces in an upgrade; None without one.
    :ivar passed: the descriptor of the listening socket that the service manager passed; None without one.
    :ivar has_terminal: whether the process may have a terminal, and must end when that closes.
    :ivar is_worker: whether it is one of several workers that share ``passed``, which their supervisor opened.
    """

    service_manager: ServiceManager
    program: Program | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    old_process: OldProcess | None = None
    passed: int | None = None
    has_terminal: bool = False
    is_worker: bool = False


@implementer(IServerLife, ISignalReceiver)
class Orchestrator(Service):
    """
    The server, as a Twisted service.

    :param assembly: puts the parts together when the service starts, after any fork.
    :param launch: how this program was started, and its options.
    :ivar exit_code: the exit status for the process.
    :ivar started: fires with the server's URL when it serves; fails with `NotStarted`.
    """

    def __init__(
        self,
        reactor: Any,
        lock: StateDirectoryLock,
        assembly: Assembly,
        launch: Launch | None = None,
    ) -> None:
        self._reactor = reactor
        self._lock = lock
        self._assembly = assembly
        self._server: Server | None = None
        self._starting: Deferred[None] | None = None
        self._hung_up = False
        self._is_ready = False
        self._is_terminated = False
        self._is_stopping = False
        self._signals = Signals(reactor, self)
        launch = Launch(ServiceManager(reactor, None)) if launch is None else launch
        self._launch = launch
        self._service_manager = launch.service_manager
        self._upgrading = Upgrade(reactor, launch.program, launch.environ, lock, launch.service_manager, self)
        self._new_process: NewProcess | None = None
        self._served_out: Deferred[None] | None = None
        self._watchdog: Service | None = None
        self._terminal: ControllingTerminal | None = None
        self.exit_code = 0
        self.started: Deferred[str] = Deferred()

    # Twisted's side

    def startService(self) -> None:
        """Begin to start; `started` fires when it serves."""
        Service.startService(self)
        self._terminal = ControllingTerminal.of_process(self._reactor) if self._launch.has_terminal else None
        if self._terminal is not None:
            self._terminal.startService()  # type: ignore[no-untyped-call]
        self._signals.install()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._not_started)

    def stopService(self) -> Deferred[None]:
        """End the server; fire when all state is written and every child process has ended."""
        Service.stopService(self)
        self._is_stopping = True
        return Deferred.fromCoroutine(self._stop())

    # Signals

    def hang_up(self) -> None:
        """
        Reload; before the first generation serves, and during an upgrade, keep the request until that has ended.

        If the server ran in the foreground of a terminal that was closed, end it instead.
        """
        if self._new_process is not None:
            self._new_process.send_signal("HUP")
        elif self._terminal is not None and self._terminal.is_lost():
            log.info("the terminal was closed, so this server, which ran in its foreground, shuts down")
            self.terminate()
        elif not self._is_ready or self._server is None or self._upgrading.is_running:
            self._hung_up = True
        elif not self._is_stopping:
            reloading = self._server[Coordinator].reload(ReloadRequest(source="signal", actor="signal"))
            reloading.addErrback(lambda failure: log.warn("no reload: {why}", why=failure.getErrorMessage()))

    def upgrade(self) -> None:
        """Begin to hand over to a new program."""
        before = self._launch.old_process
        if not self._is_ready or self._server is None or self._is_stopping or self._new_process is not None:
            log.warn("SIGUSR2: this server does not serve, so there is nothing to hand over; this signal is ignored")
        elif before is not None and not before.has_ended:
            log.warn(
                "SIGUSR2: the program that this one replaced (pid {pid}) still finishes its work; send it again later",
                pid=before.pid,
            )
        else:
            self._upgrading.begin(UpgradableServer(self._server))

    @property
    def is_ending(self) -> bool:
        """See `IServerLife.is_ending`."""
        return self._is_stopping or self._is_terminated

    def handed_over(self, new_process: NewProcess) -> None:
        """See `IServerLife.handed_over`."""
        assert self._server is not None
        self._new_process = new_process
        server = self._server
        self._served_out = server[ServerPort].retire(server.options.shutdown_timeout / 2.0)
        server[Coordinator].close()
        self._hang_up_if_kept()
        self._end_reactor()

    def not_handed_over(self) -> None:
        """See `IServerLife.not_handed_over`."""
        if not self._is_stopping:
            self._hang_up_if_kept()

    def _hang_up_if_kept(self) -> None:
        kept, self._hung_up = self._hung_up, False
        if kept:
            self.hang_up()

    def terminate(self) -> None:
        """Begin to end the server."""
        self._is_terminated = True
        log.info("shutting down; a second signal ends the server at once")
        self._end_reactor()

    def retire(self) -> None:
        """Begin to end the server without a refusal, since other processes accept the new connections."""
        if not self._is_ready or self._server is None:
            self.terminate()
            return
        self._is_terminated = True
        log.info("shutting down; other workers serve")
        self._served_out = self._server[ServerPort].retire(self._server.options.shutdown_timeout / 2.0)
        self._server[Coordinator].close()
        self._end_reactor()

    def end_at_once(self) -> None:
        """End the process at once, without waiting for running work."""
        end_at_once(ENDED_AT_ONCE)

    def _end_reactor(self) -> None:
        if self._reactor.running:
            with suppress(ReactorNotRunning):  # it is stopping already
                self._reactor.stop()

    # Starting

    async def _start(self) -> None:
        raise_open_files()
        set_switch_interval()
        before = self._launch.old_process
        self._hold_state_directory()
        server = self._server = self._assembly.make()
        await server[Publisher].leave_state()  # until the port is open
        server.services.startService()
        await server.store.open()
        await server[Membership].begin()
        await server[Pauses].load()
        await server[Circuits].load()
        await server[NamedKeys].load()
        report = await build_first_generation(server)
        if not report.ok:
            raise NotStarted(problems_of(report), report.problems)
        if before is None:
            url, recovered = await self._open(server)
        else:
            url, recovered = await before.take_over(UpgradableServer(server), self._lock, self)
        await note_start(server, recovered)
        if self._is_stopping:
            return
        log.info("HTTP listener ready on {url}", url=url, announce=True)
        server.lifecycle.emit(ServerStarted(url, server[Coordinator].generation))
        self._watchdog = Watchdog.of(self._reactor, self._service_manager, self._launch.environ)
        if self._watchdog is not None:
            self._watchdog.startService()  # type: ignore[no-untyped-call]
        if before is not None:
            before.take_over_rest(UpgradableServer(server))
        self.started.callback(url)
        self._hang_up_if_kept()

    def _hold_state_directory(self) -> None:
        """Lock the state directory, together with the old program in an upgrade, and close it to other users."""
        if self._launch.old_process is None:
            self._lock.acquire()
            self._service_manager.status("starting")
        else:
            self._launch.old_process.inherit(self._lock)
        make_private(self._lock.directory)

    async def _open(self, server: Server) -> tuple[str, int]:
        """
        Open the port, and serve. It is the last step that a mistake of an operator can make fail.

        After it, the generation is recorded as adopted, and the state file says that a server runs. Connections wait in
        the socket's queue until the unfinished deliveries of an earlier server are taken over.

        :return: the URL, and how many deliveries were taken over.
        """
        url = open_port(server, self._launch.passed)
        server[ServerPort].pause()
        if self._launch.passed is not None and not self._launch.is_worker:
            log.info("listening on the socket that the service manager passed; --bind is ignored")
        server[Publisher].take_state()
        await server[Coordinator].begin_serving()
        self._check_stopping()
        recovered = await recover(server)
        self._check_stopping()  # the port is closed already
        self.serve()
        server[ServerPort].resume()
        return url, recovered

    def _check_stopping(self) -> None:
        if self._is_stopping:
            raise ShuttingDown("the server is shutting down", retry_after=5)

    def serve(self) -> None:
        """See `IServerLife.serve`."""
        server = self._server
        assert server is not None
        server.background.startService()
        self._is_ready = True
        server.readiness.phase = None

    def _not_started(self, failure: Failure) -> None:
        if failure.check(CancelledError, ShuttingDown) and self._is_stopping:
            return
        if not failure.check(HarnError, OSError):
            log.failure("the server cannot start", failure)
        self.exit_code = 1
        self.started.addErrback(lambda _: None)
        problems = failure.value.problems if isinstance(failure.value, NotStarted) else ()
        self.started.errback(NotStarted(failure.getErrorMessage(), problems))
        self._reactor.callWhenRunning(self._end_reactor)

    # Ending

    async def _stop(self) -> None:
        server, new, before = self._server, self._new_process, self._launch.old_process
        served = self._is_ready
        self._service_manager.stopping()
        self._upgrading.cancel()
        if self._starting is not None:
            if server is not None and not served:
                await ended_in_time(self._reactor, server[Coordinator].close)
            self._starting.cancel()  # if it serves already, only records remain to be written
        if before is not None:
            before.close()
        if server is not None:
            if served:
                await drain(server, self._served_out, None if new is None else new.pid)
            elif before is None:
                await end_unserved(server)
            await self._close(server)
        self._lock.release()
        self._signals.restore()
        if self._terminal is not None and self._terminal.running:
            await ended_in_time(self._reactor, self._terminal.stopService)
        if self._watchdog is not None and self._watchdog.running:
            await ended_in_time(self._reactor, self._watchdog.stopService)
        self._service_manager.close()
        if new is not None:
            log.info("this process ends; {pid} serves", pid=new.pid, announce=True)
        elif served:
            log.info("graceful shutdown complete", announce=True)

    async def _close(self, server: Server) -> None:
        """Release all parts, whatever their state; a failure of one does not prevent the release of the others."""
        await server.background.stopService()
        await server.services.stopService()


def problems_of(report: ReloadReport) -> str:
    """Return why the first generation was not built: every problem on a line of its own."""
    return "\n".join(str(problem) for problem in report.problems) or report.error or "unknown"


def make_service(
    options: ServeOptions,
    reactor: Any,
    launch: Launch,
    spare: Spare | None = None,
    further: Sequence[Install] = (),
) -> Orchestrator:
    """
    Make the server as a service, for twistd and the command line; it is put together when it starts.

    Its ``started`` fails with `NotStarted`, which is for its caller to show; see `print_errors`.

    :param launch: how this program was started; its environment is the server's.
    :param spare: the spare interpreter, if it runs already.
    :param further: the ``install`` functions of features of one command.
    """
    lock = StateDirectoryLock(options.state_dir)
    assembly = Assembly(
        options=options,
        reactor=reactor,
        environ=launch.environ,
        service_manager=launch.service_manager,
        lock=lock,
        spare=spare,
        takes_over=launch.old_process is not None,
        further=further,
    )
    return Orchestrator(reactor, lock, assembly, launch)


def print_errors(failure: Failure) -> Failure:
    """Show an operator why the server did not start, whatever is logged; return ``failure``."""
    for line in failure.getErrorMessage().splitlines():
        print(visible(f"error: {line}"), file=sys.stderr, flush=True)  # noqa: T201
    return failure
