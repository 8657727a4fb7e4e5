"""Runs the reactor for a command: until a service has ended, or until one Deferred has fired."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from harn.observability.outputs import EXIT_LIMIT, outputs

_Result = TypeVar("_Result")

LINGER = 5.0
"""Seconds that the reactor's threads may take to end once the service has: one may wait for a file system for ever."""


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


def end_at_once(status: int) -> None:
    """End the process with ``status``, whatever its threads do; what is logged has a moment to be written."""
    outputs.flush(EXIT_LIMIT)
    os._exit(status)


def run_until(reactor: Any, begin: Callable[[], Deferred[_Result]]) -> _Result:
    """
    Run the reactor until what ``begin`` gives has fired, and give its result.

    :raises BaseException: what it failed with.
    :raises KeyboardInterrupt: the reactor was stopped before.
    """
    outcome: list[_Result | Failure] = []

    def ended(result: _Result | Failure) -> None:
        outcome.append(result)
        reactor.stop()

    def start() -> None:
        begin().addBoth(ended)

    reactor.callWhenRunning(start)
    reactor.run()
    if not outcome:
        raise KeyboardInterrupt
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result
