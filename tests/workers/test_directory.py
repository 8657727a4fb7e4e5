"""The state directory of a supervisor."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import StateDirectoryUnusable
from harn.store.lock import STATE_FILE, StateDirectoryLock, read_state
from harn.workers.assignment import worker_directory
from harn.workers.directory import DIGEST_KEY, SharedDirectory, wait_for_earlier


class SharedDirectoryTests(SynchronousTestCase):
    """Two workers, each with a state file and a key."""

    def setUp(self) -> None:
        """Make the directories."""
        self.path = os.path.abspath(self.mktemp())
        for number in (1, 2):
            os.makedirs(worker_directory(self.path, number))
            for name, text in ((STATE_FILE, f'{{"pid": {number}}}'), (DIGEST_KEY, str(number))):
                with open(os.path.join(worker_directory(self.path, number), name), "w", encoding="ascii") as file:
                    file.write(text)
        self.directory = SharedDirectory(self.path)

    def key(self) -> str:
        """Return the digest key that commands read."""
        with open(os.path.join(self.path, DIGEST_KEY), encoding="ascii") as file:
            return file.read()

    def test_show(self) -> None:
        """The state file is that of the worker that is shown; the key is the first one's, whichever that is."""
        for number in (2, 1, 2):
            self.directory.show(number)
            self.assertEqual(read_state(self.path), {"pid": number})
            self.assertEqual(self.key(), "1")
        self.assertEqual(len(os.listdir(self.path)), 4)

    def test_of_a_lone_server(self) -> None:
        """The state file of a server that ran alone here is replaced, its key stays."""
        for name in (STATE_FILE, DIGEST_KEY):
            with open(os.path.join(self.path, name), "w", encoding="ascii") as file:
                file.write("{}")
        self.directory.show(2)
        self.assertEqual((read_state(self.path), self.key()), ({"pid": 2}, "{}"))

    def test_that_cannot_be_written(self) -> None:
        """A directory that is gone is logged, and no more."""
        SharedDirectory(os.path.join(self.path, "gone")).show(1)
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_earlier_workers(self) -> None:
        """Workers that still end are waited for; one that does not is named."""
        lock = StateDirectoryLock(worker_directory(self.path, 2))
        lock.acquire()
        pauses: list[float] = []
        error = self.assertRaises(StateDirectoryUnusable, wait_for_earlier, self.path, pauses.append)
        self.assertIn(f"worker-2 of an earlier supervising process still runs (pid {os.getpid()})", str(error))
        self.assertGreater(len(pauses), 10)
        wait_for_earlier(self.path, lambda seconds: lock.release())
        wait_for_earlier(self.path, self.fail)
