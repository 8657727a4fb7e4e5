"""The state directory's lock, between real processes."""

import os
import signal
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import EventLogGone, StateDirectoryUnusable
from harn.store import lock as lock_module
from harn.store.lock import StateDirectoryLock, holder

LOCK_DIRECTORY = lock_module._lock_directory

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


def held(lock: StateDirectoryLock) -> int:
    """Return the descriptor of a lock that is held."""
    assert lock.descriptor is not None
    return lock.descriptor


class LockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        self.file = os.path.join(self.directory, "lock")
        self.lock = StateDirectoryLock(self.directory)
        self.addCleanup(self.lock.release)

    def start(self, program: str) -> Any:
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        child: Any = subprocess.Popen(
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

    def refusal(self, directory: str | None = None) -> str:
        with self.assertRaises(StateDirectoryUnusable) as raised:
            StateDirectoryLock(directory or self.directory).acquire()
        return str(raised.exception)

    def test_makes_a_private_directory(self) -> None:
        """A missing directory is made, for its owner only, and its parents with it."""
        self.lock = StateDirectoryLock(os.path.join(self.directory, "deep"))
        self.lock.acquire()
        for made in (self.directory, self.lock.directory):
            self.assertEqual(os.stat(made).st_mode & 0o777, 0o700)

    def test_second_server_is_refused(self) -> None:
        """While a process holds the directory, another is refused, with the directory and the process named."""
        child = self.start(HOLDER)
        message = self.refusal()
        self.assertIn(self.directory, message)
        self.assertIn(f"pid {child.pid}", message)
        self.assertEqual(holder(self.directory), child.pid)

    def test_death_releases(self) -> None:
        """A process that is killed holds nothing any more."""
        child = self.start(HOLDER)
        child.send_signal(signal.SIGKILL)
        child.wait()
        self.assertIsNone(holder(self.directory))
        self.lock.acquire()
        self.assertEqual(holder(self.directory), os.getpid())

    def test_children_do_not_inherit_it(self) -> None:
        """A child that outlives the server does not keep the directory."""
        child = self.start(FORKER)
        child.wait()
        self.lock.acquire()

    def test_release(self) -> None:
        """After `release` the directory is free; releasing and acquiring twice do no harm."""
        self.lock.acquire()
        self.lock.acquire()
        self.assertIn(f"pid {os.getpid()}", self.refusal())
        self.lock.release()
        self.lock.release()
        self.assertIsNone(holder(self.directory))
        self.lock.acquire()

    def test_two_hold_it(self) -> None:
        """A process that inherits the lock holds it, too: it is free when both have released it, in any order."""
        self.lock.acquire()
        heir = StateDirectoryLock(self.directory)
        self.addCleanup(heir.release)
        assert self.lock.of_directory is not None
        heir.inherit(os.dup(held(self.lock)), os.dup(self.lock.of_directory))
        self.assertFalse(os.get_inheritable(held(heir)))
        with open(os.path.join(self.directory, "lock"), "w") as file:
            file.write("123456789\n")
        self.assertEqual(holder(self.directory), 123456789)
        heir.claim()
        self.assertEqual(holder(self.directory), os.getpid())
        self.lock.release()
        self.assertIn(f"pid {os.getpid()}", self.refusal())
        heir.release()
        self.assertIsNone(holder(self.directory))

    def test_inheriting_something_else(self) -> None:
        """A descriptor that is not the lock of this directory, or none, or one that another holds, is refused."""
        self.lock.acquire()
        other = StateDirectoryLock(self.directory + "-other")
        other.acquire()
        self.addCleanup(other.release)
        heir = StateDirectoryLock(self.directory)
        with self.assertRaises(StateDirectoryUnusable) as raised:
            heir.inherit(held(other))
        self.assertIn("is not that of", str(raised.exception))
        self.assertRaises(StateDirectoryUnusable, heir.inherit, 9999)
        opened_again = os.open(os.path.join(self.directory, "lock"), os.O_RDWR)
        self.addCleanup(os.close, opened_again)
        self.assertRaises(StateDirectoryUnusable, heir.inherit, opened_again)
        self.assertRaises(StateDirectoryUnusable, heir.inherit, self.lock.descriptor, other.of_directory)
        self.assertIsNone(heir.descriptor)

    def test_inheriting_from_a_program_that_locked_the_file_alone(self) -> None:
        """Who inherits the lock of an older program locks the directory itself."""
        self.patch(lock_module, "_lock_directory", lambda directory: None)
        self.lock.acquire()
        self.assertIsNone(self.lock.of_directory)
        self.patch(lock_module, "_lock_directory", LOCK_DIRECTORY)
        heir = StateDirectoryLock(self.directory)
        self.addCleanup(heir.release)
        heir.inherit(os.dup(held(self.lock)))
        self.assertIsNotNone(heir.of_directory)
        self.lock.release()
        self.refusal()

    def test_lock_file_removed(self) -> None:
        """Without its lock file the directory is held all the same, by whom is known, and the file is made again."""
        child = self.start(HOLDER)
        os.unlink(self.file)
        self.assertIn(f"pid {child.pid}", self.refusal())
        self.assertEqual(holder(self.directory), child.pid)
        self.assertFalse(os.path.exists(self.file))

    if not os.path.exists("/proc/locks"):
        test_lock_file_removed.skip = "the system does not tell who holds a lock"  # type: ignore[attr-defined]  # trial's own

    def test_other_paths(self) -> None:
        """A directory that is held is held by whatever path it is reached."""
        self.lock.acquire()
        link = self.mktemp()
        os.symlink(self.directory, link)
        os.unlink(self.file)
        self.assertIn("is held by another server", self.refusal(link))

    def test_check_makes_the_file_again(self) -> None:
        """A lock file that was removed, or replaced, is made and locked again, under the same descriptor."""
        self.lock.acquire()
        descriptor = held(self.lock)
        self.lock.check()
        os.unlink(self.file)
        self.lock.check()
        self.assertEqual((holder(self.directory), self.lock.descriptor), (os.getpid(), descriptor))
        with open(self.file + ".new", "w") as file:
            file.write("")
        os.replace(self.file + ".new", self.file)
        self.lock.check()
        self.assertEqual(holder(self.directory), os.getpid())
        self.assertFalse(os.get_inheritable(descriptor))

    def test_check_finds_that_the_directory_was_moved(self) -> None:
        """A directory that was moved, or replaced, is not held any more, and nothing is made in its place."""
        self.lock.acquire()
        os.rename(self.directory, self.directory + "-moved")
        for _ in range(2):
            with self.assertRaises(EventLogGone) as raised:
                self.lock.check()
            self.assertIn("moved or replaced", str(raised.exception))
            self.assertFalse(os.path.exists(self.file))
            os.makedirs(self.directory, exist_ok=True)

    def test_check_finds_another_server(self) -> None:
        """Where directories cannot be locked, a new lock file that another server holds is the end for this one."""
        self.patch(lock_module, "_lock_directory", lambda directory: None)
        self.lock.acquire()
        os.unlink(self.file)
        other = StateDirectoryLock(self.directory)
        self.addCleanup(other.release)
        other.acquire()
        with self.assertRaises(EventLogGone) as raised:
            self.lock.check()
        self.assertIn("another server", str(raised.exception))

    def test_check_of_what_two_hold(self) -> None:
        """Of two programs that hold the directory together, either makes the file again, and neither minds."""
        self.lock.acquire()
        heir = StateDirectoryLock(self.directory)
        self.addCleanup(heir.release)
        assert self.lock.of_directory is not None
        heir.inherit(os.dup(held(self.lock)), os.dup(self.lock.of_directory))
        os.unlink(self.file)
        self.lock.check()
        heir.check()
        self.assertEqual(holder(self.directory), os.getpid())

    def test_check_of_what_is_not_held(self) -> None:
        """A lock that is not held has nothing to check."""
        self.lock.check()

    def test_nobody_holds_what_is_not_there(self) -> None:
        """A directory that is missing, or without a lock, has no holder."""
        self.assertIsNone(holder(self.directory))

    def test_file_in_place_of_the_directory(self) -> None:
        """A file where the directory should be is named."""
        with open(self.directory, "w") as file:
            file.write("")
        self.assertIn("a file, not a directory", self.refusal())
        self.assertIn("a file, not a directory", self.refusal(os.path.join(self.directory, "below")))

    def test_directory_in_place_of_the_lock(self) -> None:
        """A directory where the lock should be is named."""
        os.makedirs(os.path.join(self.directory, "lock"))
        self.assertIn("directory named lock", self.refusal())

    def test_directory_that_cannot_be_written(self) -> None:
        """A directory that this user may not write to is named with its owner, and what to do."""
        os.makedirs(self.directory)
        os.chmod(self.directory, 0o500)
        self.addCleanup(os.chmod, self.directory, 0o700)
        self.assertIn("cannot be written", self.refusal())

    if os.geteuid() == 0:
        test_directory_that_cannot_be_written.skip = "root may write anywhere"  # type: ignore[attr-defined]  # trial's own
