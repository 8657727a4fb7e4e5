"""The state directory's lock, between real processes."""

import os
import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import StateDirectoryUnusable
from harn.store.lock import StateDirectoryLock, holder

HOLDER = """
import sys
from harn.store.lock import StateDirectoryLock
lock = StateDirectoryLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""

FORKER = """
import subprocess, sys
from harn.store.lock import StateDirectoryLock
lock = StateDirectoryLock(sys.argv[1])
lock.acquire()
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], close_fds=False)
print("held", flush=True)
"""


class LockTests(SynchronousTestCase):
    def setUp(self):
        self.directory = os.path.abspath(self.mktemp())
        self.lock = StateDirectoryLock(self.directory)
        self.addCleanup(self.lock.release)

    def start(self, program):
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        child = subprocess.Popen(
            [sys.executable, "-c", program, self.directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        self.addCleanup(child.stdin.close)
        self.addCleanup(child.stdout.close)
        self.assertEqual(child.stdout.readline(), "held\n")
        return child

    def refusal(self, directory=None):
        with self.assertRaises(StateDirectoryUnusable) as raised:
            StateDirectoryLock(directory or self.directory).acquire()
        return str(raised.exception)

    def test_makes_a_private_directory(self):
        """A missing directory is made, for its owner only, and its parents with it."""
        self.lock = StateDirectoryLock(os.path.join(self.directory, "deep"))
        self.lock.acquire()
        self.assertEqual(os.stat(self.lock.directory).st_mode & 0o777, 0o700)

    def test_second_server_is_refused(self):
        """While a process holds the directory, another is refused, with the directory and the process named."""
        child = self.start(HOLDER)
        message = self.refusal()
        self.assertIn(self.directory, message)
        self.assertIn(f"pid {child.pid}", message)
        self.assertEqual(holder(self.directory), child.pid)

    def test_death_releases(self):
        """A process that is killed holds nothing any more."""
        child = self.start(HOLDER)
        child.send_signal(signal.SIGKILL)
        child.wait()
        self.assertIsNone(holder(self.directory))
        self.lock.acquire()
        self.assertEqual(holder(self.directory), os.getpid())

    def test_children_do_not_inherit_it(self):
        """A child that outlives the server does not keep the directory."""
        child = self.start(FORKER)
        child.wait()
        self.lock.acquire()

    def test_release(self):
        """After `release` the directory is free; releasing and acquiring twice do no harm."""
        self.lock.acquire()
        self.lock.acquire()
        self.assertIn(f"pid {os.getpid()}", self.refusal())
        self.lock.release()
        self.lock.release()
        self.assertIsNone(holder(self.directory))
        self.lock.acquire()

    def test_two_hold_it(self):
        """Who inherits the lock holds it, too: it is free when both have let go, in any order; the id is who claims."""
        self.lock.acquire()
        heir = StateDirectoryLock(self.directory)
        self.addCleanup(heir.release)
        heir.inherit(os.dup(self.lock.descriptor))
        self.assertFalse(os.get_inheritable(heir.descriptor))
        with open(os.path.join(self.directory, "lock"), "w") as file:
            file.write("123456789\n")
        self.assertEqual(holder(self.directory), 123456789)
        heir.claim()
        self.assertEqual(holder(self.directory), os.getpid())
        self.lock.release()
        self.assertIn(f"pid {os.getpid()}", self.refusal())
        heir.release()
        self.assertIsNone(holder(self.directory))

    def test_inheriting_something_else(self):
        """A descriptor that is not the lock of this directory, or none, or one that another holds, is refused."""
        self.lock.acquire()
        other = StateDirectoryLock(self.directory + "-other")
        other.acquire()
        self.addCleanup(other.release)
        heir = StateDirectoryLock(self.directory)
        with self.assertRaises(StateDirectoryUnusable) as raised:
            heir.inherit(other.descriptor)
        self.assertIn("is not that of", str(raised.exception))
        self.assertRaises(StateDirectoryUnusable, heir.inherit, 9999)
        opened_again = os.open(os.path.join(self.directory, "lock"), os.O_RDWR)
        self.addCleanup(os.close, opened_again)
        self.assertRaises(StateDirectoryUnusable, heir.inherit, opened_again)
        self.assertIsNone(heir.descriptor)

    def test_nobody_holds_what_is_not_there(self):
        """A directory that is missing, or without a lock, is held by nobody."""
        self.assertIsNone(holder(self.directory))

    def test_file_in_place_of_the_directory(self):
        """A file where the directory should be is named."""
        with open(self.directory, "w") as file:
            file.write("")
        self.assertIn("a file, not a directory", self.refusal())
        self.assertIn("a file, not a directory", self.refusal(os.path.join(self.directory, "below")))

    def test_directory_in_place_of_the_lock(self):
        """A directory where the lock should be is named."""
        os.makedirs(os.path.join(self.directory, "lock"))
        self.assertIn("directory named lock", self.refusal())

    def test_directory_that_cannot_be_written(self):
        """A directory that this user may not write to is named with its owner, and what to do."""
        os.makedirs(self.directory)
        os.chmod(self.directory, 0o500)
        self.addCleanup(os.chmod, self.directory, 0o700)
        self.assertIn("cannot be written", self.refusal())

    if os.geteuid() == 0:
        test_directory_that_cannot_be_written.skip = "root may write anywhere"
