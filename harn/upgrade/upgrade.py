"""
The upgrade in place: a new program is started beside this one and takes over when it could serve, or never was.

Until then nothing changes here but that reloads wait. The step in which it takes over has no ``await`` in it, like the
one that adopts a generation; until it has said that it did so, this program can go on.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger

from harn.errors import ShuttingDown
from harn.orchestrator.notify import Supervisor
from harn.orchestrator.parts import Parts
from harn.store.lock import StateDirectoryLock
from harn.upgrade.handover import DIRECTORY, HandoverFailed, Inheritance, Program
from harn.upgrade.new_process import Successor

log = Logger(namespace="harn")

FIRST = 1
"""The process with whose end everything ends."""
START_LIMIT = 60.0
"""Seconds that a new program may take until it could serve."""
TAKE_LIMIT = 5.0
"""Seconds that it may take to take over then: meanwhile connections wait in the socket's queue."""


class Upgrade:
    """
    Hands over to a new program, or goes on as if nothing had happened.

    :param program: how this program was started; None when that is not known.
    :param environ: what the new program is started with.
    :param handed_over: called when it has taken over, with the new program; ``failed`` when it will not.
    :param is_ending: tells whether this server was told to end: then nobody takes over.
    """

    def __init__(
        self,
        reactor: Any,
        program: Program | None,
        environ: Mapping[str, str],
        lock: StateDirectoryLock,
        supervisor: Supervisor,
        handed_over: Callable[[Successor], None],
        failed: Callable[[], None],
        is_ending: Callable[[], bool],
    ) -> None:
        self._reactor = reactor
        self._program = program
        self._environ = environ
        self._lock = lock
        self._supervisor = supervisor
        self._handed_over = handed_over
        self._failed = failed
        self._is_ending = is_ending
        self._task: Deferred[None] | None = None

    @property
    def is_under_way(self) -> bool:
        """Tell whether a new program is being started."""
        return self._task is not None

    def begin(self, parts: Parts) -> None:
        """Start the new program, unless one is being started."""
        if self._program is None:
            log.error(
                "SIGUSR2: only a server that was started by `harn orchestrator serve` can be upgraded in place;"
                " restart this one"
            )
        elif os.getpid() == FIRST:
            log.error(
                "SIGUSR2: this server is process 1 of its container, which would end with it; restart the container"
            )
        elif self._task is not None:
            log.warn("SIGUSR2: an upgrade is under way; this signal is ignored")
        else:
            self._task = Deferred()  # it may be over before it is known
            task = Deferred.fromCoroutine(self._run(parts, self._program))
            if self._task is not None:
                self._task = task
            task.addErrback(lambda failure: log.failure("the upgrade ended in an unexpected way", failure))

    def cancel(self) -> None:
        """Give up what is under way, since this server ends: the new program is ended."""
        if self._task is not None:
            self._task.cancel()

    # One try

    async def _run(self, parts: Parts, program: Program) -> None:
        heir = Successor(self._reactor)
        try:
            async with parts.coordinator.turns.turn():
                why = await self._try(parts, program, heir)
                if why is None:
                    self._hand_over(heir)
                else:
                    await self._go_on(parts, heir, why)
        except ShuttingDown:  # what a turn makes of its cancelling
            self._give_up(parts, heir)
            return
        finally:
            self._task = None
        if why is not None:
            self._failed()

    async def _try(self, parts: Parts, program: Program, heir: Successor) -> str | None:
        """
        Start the new program, wait until it could serve, let it take over; say why it did not, or None.

        :raises ShuttingDown: this server ends.
        """
        listening, lock = parts.listening, self._lock
        assert listening is not None
        directory = None if lock.of_directory is None else DIRECTORY
        inheritance = Inheritance(pid=os.getpid(), incarnation=parts.store.incarnation, directory=directory)
        limit = f"it could not serve within {START_LIMIT:g} s"
        try:
            heir.spawn(program, self._environ, inheritance, listening.descriptor, lock)
            command = shlex.join(program.arguments)
            log.info("upgrade: process {pid} starts: {command}", pid=heir.pid, command=command)
            self._supervisor.status(f"process {heir.pid} starts to take over; {parts.status}")
            await heir.serves.addTimeout(START_LIMIT, self._reactor)
            await parts.publisher.leave_state()
            if not heir.is_alive:  # it may have ended while the state file was being written
                return heir.end
            self._check_ending()
            limit = f"it did not take over within {TAKE_LIMIT:g} s"
            listening.pause()
            heir.hand_over()
            await heir.taken.addTimeout(TAKE_LIMIT, self._reactor)
            self._check_ending()
        except (CancelledError, ShuttingDown):
            raise
        except TimeoutError:
            return limit
        except HandoverFailed as error:
            return str(error)
        except Exception as error:
            log.failure("the upgrade failed in an unexpected way")
            return str(error) or type(error).__name__
        return None

    def _check_ending(self) -> None:
        if self._is_ending():
            raise ShuttingDown("the server is shutting down", retry_after=5)

    def _hand_over(self, heir: Successor) -> None:
        self._supervisor.main_pid(heir.pid)
        heir.is_main()
        self._handed_over(heir)
        log.info("process {pid} serves now; this one ends what it has", pid=heir.pid, announce=True)

    def _give_up(self, parts: Parts, heir: Successor) -> None:
        """End with this server what it has started."""
        if heir.was_told:
            heir.send_signal("TERM")  # it may have taken requests
        else:
            heir.kill()
        parts.publisher.take_state()
        log.info("the upgrade was given up: this server ends")

    async def _go_on(self, parts: Parts, heir: Successor, why: str) -> None:
        """Be as if nothing had happened."""
        gone = heir.kill()
        if heir.was_told and parts.listening is not None:
            parts.listening.resume()
        parts.publisher.take_state()
        log.error(
            "the upgrade failed, and this process goes on serving: the new program: {why}", why=why, announce=True
        )
        self._supervisor.status(f"upgrade failed: {why}; {parts.status}")
        parts.coordinator.are_numbers_known = False
        try:
            await gone.addTimeout(TAKE_LIMIT, self._reactor)  # until then it may give numbers
            await parts.coordinator.renumber()
        except CancelledError:
            raise
        except Exception as error:  # the next reload tries it again
            log.warn("numbers that the new program gave are not known yet: {why}", why=str(error) or "it still runs")
        await parts.publisher.save_state()
