"""``harn orchestrator serve``: run the orchestrator in the foreground; and the reactor for other commands."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from harn.cli.options import with_flags
from harn.options import OPTIONS, ServeOptions
from harn.orchestrator.process import end_at_once, hold_back
from harn.processes import close_memory
from harn.workers.assignment import Assignment

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from harn.model.problem import Problem
    from harn.server import Install
    from harn.vm.spare import Spare
    from harn.workers.link import SupervisorLink

_Result = TypeVar("_Result")

LINGER = 5.0
"""Seconds that the reactor's threads may take to end once the service has: one may wait for a file system for ever."""


@click.command()
@with_flags(*OPTIONS)
def serve(**given: Any) -> None:
    """
    Serve the triggers of a manifest, until SIGTERM or SIGINT.

    SIGHUP reloads the manifest and the code of its handlers; SIGUSR2 starts the program again, and hands over to it.
    With --workers, SIGUSR2 restarts the workers one by one.
    """
    try:
        options = ServeOptions.from_values(given, os.environ)
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    # From here on the process is a server's; a wrong option changes nothing of it.
    hold_back()
    close_memory()
    assignment = Assignment.taken_from(os.environ)
    if assignment is not None:
        # Of its own group, so that Ctrl-C ends the workers once, by their supervisor.
        os.setpgid(0, 0)
        sys.exit(run(assignment.options(options), assignment=assignment))
    if options.workers > 1:
        from harn.cli.workers import run_workers

        sys.exit(run_workers(options))
    sys.exit(run(options))


def run(
    options: ServeOptions,
    environ: Mapping[str, str] = os.environ,
    further: Sequence[Install] = (),
    assignment: Assignment | None = None,
) -> int:
    """
    Serve with these options; return the process's exit status.

    :param further: the ``install`` functions of features of one command.
    :param assignment: what a worker was assigned, with ``options`` of its own; None for a server without workers.
    :raises StateDirectoryUnusable: another server holds the state directory, which is known before a reactor is loaded.
    """
    from harn.store.lock import refuse_held
    from harn.systemd import ServiceManager, passed_descriptor
    from harn.upgrade.program import Inheritance, OldProcess, Program

    inheritance = Inheritance.taken_from(os.environ)
    if inheritance is None:
        refuse_held(options.state_dir)
    passed = passed_descriptor(os.environ) if assignment is None else assignment.listening
    from twisted.internet import reactor

    begin_process(options, reactor)
    spare = start_spare(reactor) if options.vm == "child" else None
    from harn.orchestrator.service import Launch, make_service

    launch = Launch(
        service_manager=ServiceManager.of(reactor, environ),
        program=None if assignment else Program.of(sys.orig_argv, sys.executable, os.getcwd()),
        environ=environ,
        old_process=None if inheritance is None else OldProcess(reactor, inheritance),
        passed=passed,
        has_terminal=assignment is None,
        is_worker=assignment is not None,
    )
    link = None if assignment is None else make_link(reactor, assignment)
    service = make_service(options, reactor, launch, spare, further if link is None else (*further, link.install))
    service.started.addErrback(show_problems, reactor, options.manifest)
    if link is not None:
        link.begin(service)
    return run_service(service, reactor)


def begin_process(options: ServeOptions, reactor: Any) -> None:
    """Use a monotonic clock, and start the log of the process."""
    from twisted.logger import globalLogBeginner

    from harn.clocks import use_monotonic_time
    from harn.observability.logs import process_sinks, start_logging

    use_monotonic_time(reactor)
    sinks = process_sinks(options.state_dir, options.worker_name)
    start_logging(options.log_format, options.log_level, sinks, globalLogBeginner)


def make_link(reactor: Any, assignment: Assignment) -> SupervisorLink:
    """Return a worker's end of the channel to its supervisor."""
    from harn.workers.link import SupervisorLink

    return SupervisorLink(reactor, assignment.channel, assignment.silence)


def show_problems(failure: Failure, reactor: Any, manifest: str) -> None:
    """
    Show an operator why the server did not start: each problem with its source, which a thread reads.

    :param manifest: its path.
    """
    from twisted.internet.threads import deferToThreadPool

    from harn.orchestrator.service import NotStarted, print_errors

    if not isinstance(failure.value, NotStarted) or not failure.value.problems:
        print_errors(failure)
        return
    deferToThreadPool(reactor, reactor.getThreadPool(), print_problems, failure.value.problems, manifest)


def print_problems(problems: Sequence[Problem], manifest: str) -> None:
    """Print each problem on stderr, with its source. Blocks: for a thread, for which the end of the server waits."""
    from harn.cli.output import print_error, warn
    from harn.cli.reload import describe_problems
    from harn.reload.excerpts import Excerpts
    from harn.reload.results import ProblemInfo

    for said, *source in describe_problems(list(map(ProblemInfo.of, problems)), Excerpts(manifest)):
        print_error(said)
        for line in source:
            warn(line)


def start_spare(reactor: Any) -> Spare:
    """Start the process of the first interpreter: it imports its modules while this process imports the server's."""
    from harn.listener.descriptors import raise_open_files
    from harn.vm.handler_output import Printing
    from harn.vm.spare import Spare

    raise_open_files()
    spare = Spare(reactor, Printing(reactor))
    spare.start()
    return spare


class RunnableService(Protocol):
    """
    The interface of a service for `run_service`.

    :ivar exit_code: the process's exit status once the reactor has stopped.
    """

    exit_code: int

    def startService(self) -> None:
        """Start; when that fails, set ``exit_code`` and stop the reactor."""

    def stopService(self) -> Any:
        """Stop; fires when everything has ended."""


def run_service(service: RunnableService, reactor: Any) -> int:
    """
    Run ``service`` until the reactor stops; give the process's exit status.

    A thread that hangs in a system call, on a named pipe or a dead file server, does not keep the process: `LINGER`
    seconds after the service has ended, the process does, too.
    """
    overdue = threading.Timer(LINGER, lambda: end_at_once(service.exit_code))
    overdue.daemon = True
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    # By then everything is written. Called before the reactor waits for its threads: that comes with the first of them.
    reactor.addSystemEventTrigger("during", "shutdown", overdue.start)
    reactor.callWhenRunning(service.startService)
    reactor.run()
    overdue.cancel()
    return service.exit_code


def run_until(reactor: Any, work: Coroutine[Any, Any, _Result]) -> _Result:
    """
    Run the reactor until ``work`` has ended, and return its result.

    :raises BaseException: ``work`` raised it.
    :raises KeyboardInterrupt: the reactor was stopped before.
    """
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    outcome: list[_Result | Failure] = []

    def ended(result: _Result | Failure) -> None:
        outcome.append(result)
        reactor.stop()

    def start() -> None:
        Deferred.fromCoroutine(work).addBoth(ended)

    reactor.callWhenRunning(start)
    reactor.run()
    if not outcome:
        raise KeyboardInterrupt
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result
