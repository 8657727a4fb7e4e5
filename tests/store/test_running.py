"""The note of what runs, as a file: what it says, when it is written, and when it is removed."""

import os
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from harn.store.running import RunningNote, read_notes
from harn.store.worker import ThreadWorker
from harn.testing.stores.kit import NOW, StoreClock
from tests.store.sqlite_case import SQLiteTestCase


class TurnWorker:
    """A worker that runs nothing by itself: the functions for the end of the turn, and those for its thread."""

    def __init__(self) -> None:
        self.planned: list[Callable[[], None]] = []
        self.posted: list[Callable[[], None]] = []

    def start(self) -> None:
        pass

    def soon(self, function: Callable[[], None]) -> None:
        self.planned.append(function)

    def post(self, work: Callable[[], None]) -> None:
        self.posted.append(work)

    def report(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    def later(self, seconds: float, function: Callable[..., object], *args: Any) -> Any:
        raise NotImplementedError

    def stop(self) -> Deferred[None]:
        while self.posted:
            self.posted.pop(0)()
        return succeed(None)


class NotesOfServersTests(SQLiteTestCase):
    def test_notes_of_servers_that_are_gone(self) -> None:
        """A note goes with the last unfinished delivery of its server, and not before."""
        old, young = self.accept_one("old", received_at=NOW - 100), self.accept_one("young")
        self.crash(old, young)
        directory = os.path.dirname(self.path)
        self.result_of(self.store.recovery.recover(NOW, 10, NOW - 50))
        self.result_of(self.store.deliveries.begins(old))
        self.assertEqual(sorted(read_notes(directory)), [1, 2])
        self.result_of(self.store.recovery.recover(NOW, 10, NOW + 1))
        self.result_of(self.store.deliveries.begins(young))
        self.assertEqual(sorted(read_notes(directory)), [2])


class RunningNoteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = StoreClock()
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        self.note = self.make(3)

    def make(self, incarnation: int) -> RunningNote:
        note = RunningNote(self.directory, ThreadWorker("notes", self.clock))
        note.open(incarnation)
        self.addCleanup(lambda: note._open and self.clock.result_of(note.close()))
        return note

    def notes(self) -> dict[int, list[int]]:
        return {incarnation: sorted(ids) for incarnation, ids in read_notes(self.directory).items()}

    def settled(self) -> None:
        """Wait until everything before is written."""
        self.clock.result_of(self.note.begins(99))
        self.note.ended(99)
        self.clock.result_of(self.note.begins(99))

    def test_says_what_runs(self) -> None:
        """It holds what has begun and not ended; a shorter note is not mixed with a longer one before it."""
        for delivery_id in range(1000, 1100):
            self.clock.result_of(self.note.begins(delivery_id))
        for delivery_id in range(1000, 1099):
            self.note.ended(delivery_id)
        self.settled()
        self.assertEqual(self.notes(), {3: [99, 1099]})

    def test_many_in_one_turn(self) -> None:
        """A note that begins while the thread writes is written at once, and each caller is called back afterwards."""
        noted = [self.note.begins(delivery_id) for delivery_id in range(1, 50)]
        self.clock.result_of(noted[-1])
        self.assertEqual(self.notes(), {3: list(range(1, 50))})
        for each in noted[:-1]:
            self.successResultOf(each)

    def test_one_write_a_turn(self) -> None:
        """However many begin at once and end in a turn, they are written together, when it has ended."""
        worker = TurnWorker()
        note = RunningNote(self.directory, worker)
        note.open(4)
        for delivery_id in (1, 2, 3):
            note.begins_at_once(delivery_id)
        note.ended(2)
        self.assertEqual((len(worker.planned), worker.posted), (1, []))
        worker.planned.pop()()
        note.begins_at_once(5)
        worker.planned.pop()()
        self.assertEqual(len(worker.posted), 1)
        worker.posted.pop()()
        self.assertEqual(self.notes(), {4: [1, 3, 5]})
        self.successResultOf(note.close())
        self.assertEqual(self.notes(), {})

    def test_before_a_turn_ends(self) -> None:
        """What is called before its turn ends is noted before, and then not once more; what has not changed never."""
        worker = TurnWorker()
        note = RunningNote(self.directory, worker)
        note.open(4)
        note.begins_at_once(1)
        note.note_now()
        note.note_now()
        self.assertEqual(len(worker.posted), 1)
        worker.posted.pop()()
        self.assertEqual(self.notes(), {4: [1]})
        worker.planned.pop()()
        self.assertEqual(worker.posted, [])
        note.begins_at_once(2)
        worker.planned.pop()()
        worker.posted.pop()()
        self.assertEqual(self.notes(), {4: [1, 2]})
        self.successResultOf(note.close())

    def test_private(self) -> None:
        """The file is its owner's alone, under the usual umask, too."""
        self.clock.result_of(self.note.begins(1))
        self.assertEqual(os.stat(os.path.join(self.directory, "running-3")).st_mode & 0o777, 0o600)

    def test_close_removes_it(self) -> None:
        """A clean end leaves no note; what asks afterwards is answered."""
        self.clock.result_of(self.note.begins(1))
        self.clock.result_of(self.note.close())
        self.assertEqual(os.listdir(self.directory), [])
        self.successResultOf(self.note.begins(2))
        self.note.ended(2)

    def test_forget(self) -> None:
        """Notes of other processes that have ended are removed, this one's is not; a missing one is not an error."""
        other = self.make(1)
        self.clock.result_of(other.begins(7))
        self.clock.result_of(self.note.begins(8))
        self.note.forget([1, 2])
        self.settled()
        self.assertEqual(list(self.notes()), [3])

    def test_other_files(self) -> None:
        """A file that is not a note, or not a whole one, is ignored."""
        for name, text in (
            ("running-x", "1\n"),
            ("running-", "1\n"),
            ("running-5", ""),
            ("running-6", "1 2"),
            ("a", "1\n"),
        ):
            with open(os.path.join(self.directory, name), "w") as file:
                file.write(text)
        os.makedirs(os.path.join(self.directory, "running-7"))
        with open(os.path.join(self.directory, "running-8"), "wb") as file:
            file.write(b"4 \xff -1 5\nrest 6 7")
        self.assertEqual(self.notes(), {5: [], 6: [], 8: [4, 5]})

    def test_cannot_be_written(self) -> None:
        """A note that cannot be written is logged once, and blocks no caller."""
        with mock.patch("harn.store.running.os.open", side_effect=OSError(28, "No space left on device")):
            for delivery_id in (1, 2):
                self.clock.result_of(self.note.begins(delivery_id))
        self.clock.result_of(self.note.begins(3))
        self.assertEqual(self.notes(), {3: [1, 2, 3]})
