"""What a worker is given: its place in the environment, and the options that follow."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from harn.options import ServeOptions
from harn.workers.assignment import VARIABLE, Assignment, NotAssigned


def given(**flags: str | bool | None) -> ServeOptions:
    """Return options of a supervisor."""
    return ServeOptions.from_values({"state_dir": "/s", "workers": "2", **flags}, {}, "/")


class AssignmentTests(SynchronousTestCase):
    """The environment of a worker."""

    def test_there_and_back(self) -> None:
        """The worker reads what the supervisor wrote, and its own child processes do not get its descriptors."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        for each in (reading, writing):
            os.set_inheritable(each, True)
        assignment = Assignment(number=2, listening=reading, channel=writing)
        environ = assignment.environment({"A": "b", "NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1", "LISTEN_FDS": "1"})
        self.assertEqual(set(environ), {"A", VARIABLE})
        self.assertEqual(Assignment.taken_from(environ), assignment)
        self.assertEqual(environ, {"A": "b"})
        self.assertFalse(os.get_inheritable(reading) or os.get_inheritable(writing))
        self.assertIsNone(Assignment.taken_from(environ))

    def test_not_of_a_supervisor(self) -> None:
        """A variable that anybody else set is refused."""
        for text in ("", "yes", '{"number": "x"}', '{"number": 1, "listening": 99999, "channel": 99999}'):
            self.assertRaises(NotAssigned, Assignment.taken_from, {VARIABLE: text})


class OptionsTests(SynchronousTestCase):
    """The options of a worker."""

    def test_directory(self) -> None:
        """Each has a state directory in that of the supervisor, and is named for it."""
        options = Assignment(number=2).options(given())
        self.assertEqual((options.state_dir, options.shared_dir, options.workers), ("/s/worker-2", "/s", 1))
        self.assertEqual(options.worker_name, "worker-2")
        self.assertIsNone(given().worker_name)

    def test_watch(self) -> None:
        """One alone watches the files."""
        watching = [Assignment(number=number).options(given(watch=True)).watch for number in (1, 2, 3)]
        self.assertEqual(watching, [True, False, False])
        self.assertFalse(Assignment(number=1).options(given()).watch)

    def test_own_pages(self) -> None:
        """Each has an address of its own for them; without one there is no console, whose sessions are of a server."""
        first, second = (Assignment(number=number).options(given(admin_bind="[::1]:9000")) for number in (1, 2))
        self.assertEqual((first.admin_bind, second.admin_bind), (("::1", 9000), ("::1", 9001)))
        self.assertFalse(first.no_console)
        free = Assignment(number=2).options(given(admin_bind="[::1]:0"))
        self.assertEqual(free.admin_bind, ("::1", 0))
        path = Assignment(number=2).options(given(admin_bind="unix:/a.sock"))
        self.assertEqual(path.admin_bind, "/a.sock.2")
        self.assertTrue(Assignment(number=1).options(given()).no_console)
