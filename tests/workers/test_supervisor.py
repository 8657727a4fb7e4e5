"""The supervisor over workers that the test scripts, and a clock."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from harn.store.lock import STATE_FILE
from harn.systemd import ServiceManager
from harn.workers.assignment import name_of
from harn.workers.directory import SharedDirectory
from harn.workers.link import RETIRE, STOP
from harn.workers.process import WorkerNotStarted
from harn.workers.restarts import FIRST, LONGEST
from harn.workers.supervisor import MARGIN, Limits, Supervisor

GRACE, SILENCE = 30.0, 20.0


class ScriptedWorker:
    """A worker that records its messages and signals."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.sent: list[bytes | int] = []

    def send(self, message: bytes) -> None:
        """See `IWorker.send`."""
        self.sent.append(message)

    def send_signal(self, number: int) -> None:
        """See `IWorker.send_signal`."""
        self.sent.append(number)


class SupervisorTests(SynchronousTestCase):
    """The test is the launcher, and the terminal."""

    def setUp(self) -> None:
        """Make a supervisor of three."""
        self.reactor: Any = MemoryReactorClock()
        self.reactor.running = True
        self.started: list[int] = []
        self.workers: dict[int, ScriptedWorker] = {}
        self.is_refused = False
        self.terminal_is_gone = False
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.supervisor = Supervisor(
            self.reactor,
            self,
            Limits(3, GRACE, SILENCE),
            SharedDirectory(self.directory),
            ServiceManager(self.reactor, None),
            self,
        )

    def start(self, number: int, events: Any) -> ScriptedWorker:
        """See `ILauncher.start`."""
        if self.is_refused:
            raise WorkerNotStarted("no process is left")
        self.started.append(number)
        self.workers[number] = ScriptedWorker(100 + len(self.started))
        return self.workers[number]

    def is_lost(self) -> bool:
        """See `ITerminal.is_lost`."""
        return self.terminal_is_gone

    def serve(self) -> None:
        """Start all, and have them serve."""
        self.supervisor.startService()
        for number in (1, 2, 3):
            self.supervisor.worker_ready(number)
        self.started.clear()

    def ends(self, number: int, status: int | None = None) -> None:
        """Report the end of a worker."""
        self.supervisor.worker_ended(number, status, "so")

    def shown(self) -> str:
        """Return which worker commands find."""
        return os.path.dirname(os.readlink(os.path.join(self.directory, STATE_FILE)))

    def test_the_first_starts_alone(self) -> None:
        """The others are started when the first one serves, and once each."""
        self.supervisor.startService()
        self.assertEqual(self.started, [1])
        self.supervisor.worker_ready(1)
        self.supervisor.worker_ready(2)
        self.assertEqual(self.started, [1, 2, 3])
        self.assertEqual(self.shown(), name_of(1))

    def test_the_first_cannot_start(self) -> None:
        """Where the first one cannot start, nothing is started again, and the exit status is 1."""
        self.supervisor.startService()
        self.ends(1, 1)
        self.reactor.advance(LONGEST)
        self.assertEqual((self.started, self.supervisor.exit_code), ([1], 1))
        self.assertTrue(self.reactor.hasStopped)

    def test_one_that_ends_is_started_again(self) -> None:
        """After a pause, which grows; commands find another one meanwhile."""
        self.serve()
        self.ends(1)
        self.assertEqual((self.started, self.shown()), ([], name_of(2)))
        self.reactor.advance(FIRST)
        self.assertEqual(self.started, [1])
        self.ends(1)
        self.reactor.advance(FIRST)
        self.assertEqual(self.started, [1])
        self.reactor.advance(FIRST)
        self.assertEqual(self.started, [1, 1])
        self.supervisor.worker_ready(1)
        self.assertEqual(self.shown(), name_of(1))

    def test_no_process(self) -> None:
        """Where the system cannot start one, it is tried again."""
        self.serve()
        self.is_refused = True
        self.ends(2)
        self.reactor.advance(FIRST)
        self.is_refused = False
        self.reactor.advance(LONGEST)
        self.assertEqual(self.started, [2])

    def test_hang_up(self) -> None:
        """One that serves is sent the signal, and no other; before one serves, it is kept."""
        self.supervisor.startService()
        self.supervisor.hang_up()
        self.assertEqual(self.workers[1].sent, [])
        self.supervisor.worker_ready(1)
        self.assertEqual(self.workers[1].sent, [signal.SIGHUP])
        self.supervisor.worker_ready(2)
        self.ends(1)
        self.supervisor.hang_up()
        self.assertEqual((self.workers[2].sent, self.workers[3].sent), ([signal.SIGHUP], []))

    def test_the_terminal_is_gone(self) -> None:
        """SIGHUP for a terminal that is gone is the end."""
        self.serve()
        self.terminal_is_gone = True
        self.supervisor.hang_up()
        self.assertTrue(self.reactor.hasStopped)
        self.assertEqual(self.workers[1].sent, [])

    def test_logs(self) -> None:
        """All that serve reopen their logs."""
        self.serve()
        self.supervisor.reopen_logs()
        self.assertEqual([each.sent for each in self.workers.values()], [[signal.SIGUSR1]] * 3)

    def test_end(self) -> None:
        """All are asked to end, those that wait to be started are not, and it ends with the last one, with 0."""
        self.serve()
        self.ends(3)
        self.supervisor.terminate()
        self.assertTrue(self.reactor.hasStopped)
        stopping = self.supervisor.stopService()
        self.assertEqual((self.workers[1].sent, self.workers[2].sent), ([STOP], [STOP]))
        self.ends(2, 0)
        self.assertNoResult(stopping)
        self.ends(1, 0)
        self.successResultOf(stopping)
        self.reactor.advance(LONGEST)
        self.assertEqual((self.started, self.supervisor.exit_code), ([], 0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_one_that_does_not_end(self) -> None:
        """A worker that takes longer than a shutdown may is killed, and the exit status is 1."""
        self.serve()
        stopping = self.supervisor.stopService()
        self.ends(1, 0)
        self.ends(2, 0)
        self.reactor.advance(GRACE + MARGIN)
        self.assertEqual(self.workers[3].sent, [STOP, signal.SIGKILL])
        self.ends(3)
        self.successResultOf(stopping)
        self.assertEqual(self.supervisor.exit_code, 1)

    def test_one_that_hangs(self) -> None:
        """One that has sent once that it runs is killed when it is silent for too long; another one is not."""
        self.serve()
        for number in (1, 2):
            self.supervisor.worker_alive(number)
        self.reactor.advance(SILENCE - 1)
        self.supervisor.worker_alive(2)
        self.reactor.advance(1)
        self.assertEqual([each.sent for each in self.workers.values()], [[signal.SIGKILL], [], []])
        self.ends(1)
        self.ends(2)
        self.reactor.advance(FIRST)
        self.reactor.advance(SILENCE)
        self.assertEqual([each.sent for each in self.workers.values()], [[], [], []])

    def test_silent_while_it_is_retired(self) -> None:
        """What it sent just before it began to end does not count: it has the time of a shutdown, and is silent."""
        self.serve()
        self.supervisor.worker_alive(1)
        self.supervisor.upgrade()
        self.supervisor.worker_alive(1)
        self.reactor.advance(GRACE + MARGIN - 1)
        self.assertEqual(self.workers[1].sent, [RETIRE])
        self.reactor.advance(1)
        self.assertEqual(self.workers[1].sent, [RETIRE, signal.SIGKILL])

    def test_silent_while_all_end(self) -> None:
        """The same holds when the command ends."""
        self.serve()
        self.supervisor.worker_alive(1)
        self.supervisor.stopService()
        self.supervisor.worker_alive(1)
        self.reactor.advance(GRACE + MARGIN - 1)
        self.assertEqual(self.workers[1].sent, [STOP])

    def test_ready_while_ending(self) -> None:
        """One that serves only when all are to end starts no others."""
        self.supervisor.startService()
        self.supervisor.stopService()
        self.supervisor.worker_ready(1)
        self.assertEqual(self.started, [1])

    def test_one_by_one(self) -> None:
        """Each is retired only when the one before serves again, and started without a pause."""
        self.serve()
        self.supervisor.upgrade()
        self.supervisor.upgrade()  # under way: ignored
        for number in (1, 2, 3):
            self.assertEqual(self.workers[number].sent, [RETIRE])
            self.assertEqual(self.started, list(range(1, number)))
            self.ends(number, 0)
            self.assertEqual(self.started, list(range(1, number + 1)))
            self.assertNotIn(RETIRE, [sent for each in self.workers.values() for sent in each.sent])
            self.supervisor.worker_ready(number)
        self.assertEqual([each.sent for each in self.workers.values()], [[]] * 3)

    def test_one_by_one_with_a_program_that_cannot_start(self) -> None:
        """Where the new one cannot start, the others stay as they are."""
        self.serve()
        self.supervisor.upgrade()
        self.ends(1, 0)
        self.ends(1, 1)
        self.reactor.advance(FIRST)
        self.supervisor.worker_ready(1)
        self.assertEqual((self.workers[2].sent, self.workers[3].sent), ([], []))
        self.assertEqual(self.started, [1, 1])

    def test_one_by_one_with_one_that_is_away(self) -> None:
        """One that is to be started anyway is waited for, and the rest follows."""
        self.serve()
        self.ends(1)
        self.supervisor.upgrade()
        self.assertEqual(self.workers[2].sent, [])
        self.reactor.advance(FIRST)
        self.supervisor.worker_ready(1)
        self.assertEqual(self.workers[2].sent, [RETIRE])
