"""Outputs of the log: they never block the caller, and records that they drop are counted and reported."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.observability import exposition
from harn.observability.exposition import Scrape
from harn.observability.metrics import Metrics
from harn.observability.outputs import (
    Descriptor,
    Notices,
    Output,
    Outputs,
    WriteFailed,
    count_whole,
    text_stream,
    write_all,
)

WAIT = 10.0
"""Seconds that a thread may take for work that it does at once."""


class ScriptedDevice:
    """
    A device that a test stops, and lets fail.

    :ivar written: what it took, a write each.
    :ivar may_go_on: it blocks while this is not set; ``is_blocked`` is set while it does.
    :ivar takes: how many bytes it takes before it fails; None for all.
    """

    batch = 100

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.may_go_on, self.is_blocked = threading.Event(), threading.Event()
        self.may_go_on.set()
        self.takes: int | None = None
        self.reopened = 0

    def write(self, data: bytes) -> None:
        """Write it, or fail."""
        if not self.may_go_on.is_set():
            self.is_blocked.set()
            self.may_go_on.wait(WAIT)
        if self.takes is not None:
            self.written.append(data[: self.takes])
            raise WriteFailed(min(self.takes, len(data)))
        self.written.append(data)

    def reopen(self) -> None:
        """Count it."""
        self.reopened += 1

    def text(self) -> str:
        """Return all that was written."""
        return b"".join(self.written).decode()


class OutputTests(SynchronousTestCase):
    """One output."""

    def setUp(self) -> None:
        self.device = ScriptedDevice()
        self.addCleanup(self.device.may_go_on.set)
        self.output = Output("stderr", self.device, limit=100)

    def wait(self) -> str:
        """Wait until all is written or dropped; give what was written."""
        self.assertTrue(self.output.mark().wait(WAIT))
        return self.device.text()

    def block(self) -> None:
        """Block the thread in a write."""
        self.device.may_go_on.clear()
        self.output.write("first\n")
        self.assertTrue(self.device.is_blocked.wait(WAIT))

    def test_in_order(self) -> None:
        """Records are written in the order in which they came, whole ones at once."""
        for number in range(30):
            self.output.write(f"{number}\n")
        self.assertEqual(self.wait(), "".join(f"{number}\n" for number in range(30)))
        self.assertEqual({each[-1:] for each in self.device.written}, {b"\n"})

    def test_nobody_waits(self) -> None:
        """Without a reader, records are kept up to the limit, then dropped; their number is logged once, in place."""
        self.block()
        for _ in range(20):
            self.output.write("123456789\n")
        self.assertEqual(self.output.dropped, 11)
        self.assertFalse(self.output.mark().is_set())
        self.device.may_go_on.set()
        said = self.wait()
        self.output.write("last\n")
        self.wait()
        notice = "11 log records were dropped: they could not be written\n"
        self.assertEqual(said.count("123456789\n"), 9)
        self.assertEqual(self.wait().count("dropped"), 1)
        self.assertEqual(self.device.text(), "first\n" + "123456789\n" * 9 + notice + "last\n")

    def test_said_without_another_record(self) -> None:
        """How many were dropped is said when all is written, though no record follows."""
        self.block()
        self.output.write("x" * 200)
        self.device.may_go_on.set()
        self.wait()
        self.output.reopen()  # the thread has looked again when this is done
        self.assertIn("1 log records were dropped", self.wait())

    def test_one_stop_is_one_notice(self) -> None:
        """When some room is left, one record that still fits does not begin another row of dropped ones."""
        self.block()
        for size in (80, 30, 10, 30, 10):
            self.output.write("x" * (size - 1) + "\n")
        self.assertEqual(self.output.dropped, 4)

    def test_device_that_fails(self) -> None:
        """What a full disk did not take is counted, the part of a batch that it took is not; it is said afterwards."""
        self.device.takes = 0
        for _ in range(3):
            self.output.write("lost\n")
            self.wait()
        self.assertEqual(self.output.dropped, 3)
        self.device.takes = None
        self.device.written.clear()
        self.output.write("kept\n")
        self.assertEqual(self.wait(), "3 log records were dropped: they could not be written\nkept\n")

    def test_count_of_whole_records(self) -> None:
        """Only a record that was written to its end was not dropped."""
        batch = [b"aaa\n", b"bb\n", b"c\n"]
        self.assertEqual([count_whole(batch, written) for written in (0, 3, 4, 6, 7, 9)], [0, 0, 1, 1, 2, 3])

    def test_reopen(self) -> None:
        """The thread reopens the file after the records that came before."""
        self.output.write("before\n")
        self.output.reopen()
        self.wait()
        self.assertEqual(self.device.reopened, 1)

    def test_fork(self) -> None:
        """A fork, as twistd makes, has an output of its own, whatever the parent's thread did then."""
        self.block()
        pid = os.fork()
        if not pid:
            with contextlib.suppress(BaseException):
                self.device.may_go_on.set()
                self.output.write("of the child\n")
                done = self.output.mark().wait(WAIT)
                os._exit(0 if done and self.device.text() == "of the child\n" else 1)
            os._exit(2)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)

    def test_reentrant(self) -> None:
        """A record that is made while another one is taken, as by the collector, is taken too."""
        test = self

        class Reentering(Notices):
            def dropped_notice(self, output: str, dropped: int) -> str:
                test.output.write("inner\n")
                return super().dropped_notice(output, dropped)

        self.output.notices = Reentering()
        self.block()
        self.output.write("x" * 200)
        self.device.may_go_on.set()
        self.wait()
        self.output.write("outer\n")
        said = self.wait()
        self.assertIn("inner\n", said)
        self.assertIn("outer\n", said)


class DescriptorTests(SynchronousTestCase):
    """Descriptors that others may have, too."""

    def pipe(self) -> tuple[int, int]:
        """Make a pipe that is closed at the end."""
        reading, writing = os.pipe()
        for each in (reading, writing):
            self.addCleanup(_close, each)
        return reading, writing

    def test_another_made_it_non_blocking(self) -> None:
        """A full pipe that does not block is waited for, and nothing is lost."""
        reading, writing = self.pipe()
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 65536)
        thread = threading.Thread(target=write_all, args=(writing, b"y" * 5000))
        thread.start()
        found = 0
        while found < 5000:
            found += os.read(reading, 65536).count(b"y")
        thread.join(WAIT)
        self.assertEqual(found, 5000)

    def test_reader_is_gone(self) -> None:
        """A closed pipe, a closed descriptor and a full device fail the write."""
        reading, writing = self.pipe()
        os.close(reading)
        full = os.open("/dev/full", os.O_WRONLY)
        self.addCleanup(os.close, full)
        for number in (writing, full, 9999):
            self.assertEqual(self.assertRaises(WriteFailed, Descriptor(number).write, b"x\n").written, 0)

    def test_torn_line_is_ended(self) -> None:
        """What follows a record that was cut off begins a line of its own."""
        outcomes: list[int | OSError | None] = [4, OSError(errno.ENOSPC, "full"), None]
        taken: list[bytes] = []

        def write(number: int, data: memoryview) -> int:
            outcome = outcomes.pop(0)
            if isinstance(outcome, OSError):
                raise outcome
            taken.append(bytes(data[:outcome]))
            return len(taken[-1])

        self.patch(os, "write", write)
        device = Descriptor(1)
        self.assertEqual(self.assertRaises(WriteFailed, device.write, b"cut off\n").written, 4)
        device.write(b"whole\n")
        self.assertEqual(b"".join(taken), b"cut \nwhole\n")


class StreamTests(SynchronousTestCase):
    """What stands for ``sys.stdout`` and ``sys.stderr``."""

    def setUp(self) -> None:
        self.device = ScriptedDevice()
        self.output = Output("stdout", self.device)
        self.stream = text_stream(self.output, 1)

    def written(self) -> list[bytes]:
        """Return the output, a record each."""
        self.assertTrue(self.output.mark().wait(WAIT))
        return self.device.written

    def test_lines(self) -> None:
        """A line is a record, however many pieces it is printed in; what has no end of line waits for `flush`."""
        self.device.batch = 1
        print("a", 1, file=self.stream)
        self.stream.write("b\nc\nd")
        self.assertEqual(self.written(), [b"a 1\n", b"b\nc\n"])
        self.stream.flush()
        self.assertEqual(self.written()[2:], [b"d"])

    def test_as_a_stream(self) -> None:
        """It has what users of a standard stream ask for, and takes whatever can be printed."""
        self.assertEqual((self.stream.fileno(), self.stream.encoding, self.stream.name), (1, "utf-8", "<stdout>"))
        self.assertIsInstance(self.stream.isatty(), bool)
        self.stream.buffer.write(b"bytes\n")
        self.stream.write("\udc80\n")
        self.assertEqual(b"".join(self.written()), b"bytes\n\\udc80\n")

    def test_endless_line(self) -> None:
        """A line without an end is not kept for ever."""
        for _ in range(3):
            self.stream.write("x" * 50_000)
        self.assertEqual(sum(map(len, self.written())), 100_000)


class OutputsTests(SynchronousTestCase):
    """The outputs of a process."""

    def test_flush_is_bounded(self) -> None:
        """One output whose reader stopped costs the end of the process its time, and no other output its records."""
        both, stopped, fine = Outputs(), ScriptedDevice(), ScriptedDevice()
        self.addCleanup(stopped.may_go_on.set)
        stopped.may_go_on.clear()
        for name, device in (("a", stopped), ("b", fine)):
            both.open(name, device).write("x\n")
        self.assertFalse(both.flush(0.05))
        self.assertTrue(_wait_until(lambda: fine.text() == "x\n"))
        stopped.may_go_on.set()
        self.assertTrue(both.flush(WAIT))

    def test_reopen(self) -> None:
        """All files are reopened."""
        all_of_them, devices = Outputs(), [ScriptedDevice(), ScriptedDevice()]
        for number, device in enumerate(devices):
            all_of_them.open(str(number), device)
        all_of_them.reopen()
        self.assertTrue(all_of_them.flush(WAIT))
        self.assertEqual([device.reopened for device in devices], [1, 1])

    def test_metric(self) -> None:
        """What each output dropped is counted, from 0 on."""
        ours = Outputs()
        self.patch(exposition, "outputs", ours)
        output = ours.open("stderr", ScriptedDevice())
        self.assertIn(b'harn_log_records_dropped_total{output="stderr"} 0.0', Scrape(Metrics()).render())
        output.dropped += 2
        self.assertIn(b'harn_log_records_dropped_total{output="stderr"} 2.0', Scrape(Metrics()).render())


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _wait_until(condition: Callable[[], Any]) -> bool:
    ends_at = time.monotonic() + WAIT
    while not condition() and time.monotonic() < ends_at:
        time.sleep(0.001)
    return bool(condition())
