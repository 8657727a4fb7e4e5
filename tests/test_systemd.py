"""The messages to the service manager, over a real socket: which, in which order; none of it fails."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.clocks import use_monotonic_time
from harn.lifecycle import Lifecycle, ServerStarted
from harn.orchestrator.publish import Notices, status_of
from harn.reload.interfaces import ReloadBegan, ReloadEnded
from harn.reload.report import ReloadReport, ReloadRequest
from harn.systemd import LONGEST_STATUS, MOST_WAITING, SECOND_TRY, ServiceManager, Watchdog

BEGAN = ReloadBegan(ReloadRequest(source="signal", actor="signal"))


def report(**more: Any) -> ReloadReport:
    """Make a report of generation 7."""
    values: dict[str, Any] = {"status": "ok", "source": "cli", "actor": "me", "generation": 7, "digest": "sha256:x"}
    return ReloadReport(**{**values, **more})


FAILED = {"status": "error", "stage": "validate", "error": "harn.toml:3: colour:\nunknown key", "generation": 6}


class NotifyCase(SynchronousTestCase):
    """A receiver."""

    def setUp(self) -> None:
        self.clock = Clock()
        directory = tempfile.mkdtemp()  # trial's own is too long for a socket's address
        self.addCleanup(os.rmdir, directory)
        self.path = os.path.join(directory, "notify")
        self.receiver = self.bind(self.path)
        self.addCleanup(os.unlink, self.path)
        self.service_manager = ServiceManager(self.clock, self.path)
        self.lifecycle = Lifecycle()
        Notices(self.service_manager, self.lifecycle)
        self.addCleanup(self.service_manager.close)

    def bind(self, address: str) -> socket.socket:
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(receiver.close)
        receiver.bind(address)
        receiver.setblocking(False)
        return receiver

    def heard(self, receiver: socket.socket | None = None) -> list[str]:
        """Return the messages that have arrived since the last time."""
        found = []
        while True:
            try:
                found.append((receiver or self.receiver).recv(65536).decode())
            except BlockingIOError:
                return found


class ServiceManagerTests(NotifyCase):
    def test_messages(self) -> None:
        """Each message is one datagram, of the lines that sd_notify(3) names."""
        self.clock.advance(0.0050009)
        self.service_manager.status("starting")
        self.lifecycle.emit(ServerStarted("http://127.0.0.1:1", 1))
        self.service_manager.reloading()
        self.service_manager.alive()
        self.service_manager.stopping()
        expected = [
            "STATUS=starting",
            "READY=1\nSTATUS=generation 1 serves",
            "RELOADING=1\nMONOTONIC_USEC=5000",
            "WATCHDOG=1",
            "STOPPING=1\nSTATUS=stopping",
        ]
        self.assertEqual(self.heard(), expected)

    def test_reloads(self) -> None:
        """A reload is notified with its time in microseconds; ready follows, whether it went well, failed, or broke."""
        self.clock.advance(0.0050009)
        self.service_manager.ready("x")
        self.heard()
        for ended, line in (
            (report(), "\nSTATUS=generation 7 serves"),
            (
                report(**FAILED),
                "\nSTATUS=reload failed at validate: harn.toml:3: colour: unknown key; generation 6 serves",
            ),
            (None, ""),
        ):
            self.lifecycle.emit(BEGAN)
            self.lifecycle.emit(ReloadEnded(ended))
            self.assertEqual(self.heard(), ["RELOADING=1\nMONOTONIC_USEC=5000", "READY=1" + line])

    def test_time_is_that_of_the_system(self) -> None:
        """The time of a reload is CLOCK_MONOTONIC's."""
        use_monotonic_time(self.clock)
        service_manager = ServiceManager(self.clock, self.path)
        service_manager.ready("x")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        service_manager.reloading()
        told = int(self.heard()[-1].rpartition("=")[2])
        self.assertTrue(before <= told <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def test_start(self) -> None:
        """The first generation is built in what looks like a reload; no message is sent before the server is ready."""
        self.lifecycle.emit(BEGAN)
        self.lifecycle.emit(ReloadEnded(report()))
        self.service_manager.stopping()
        self.assertEqual(self.heard(), [])

    def test_end(self) -> None:
        """A reload that ends after the end has begun does not make the server ready again; a second end is silent."""
        self.service_manager.ready("x")
        self.lifecycle.emit(BEGAN)
        self.service_manager.stopping()
        self.lifecycle.emit(ReloadEnded(None))
        self.service_manager.stopping()
        self.assertEqual([each.partition("\n")[0] for each in self.heard()], ["READY=1", "RELOADING=1", "STOPPING=1"])

    def test_another_process(self) -> None:
        """Once another process is the service, this one is silent."""
        self.service_manager.ready("x")
        self.heard()
        self.service_manager.main_pid(4711)
        self.lifecycle.emit(BEGAN)
        self.service_manager.alive()
        self.service_manager.stopping()
        self.service_manager.ready("y")
        self.assertEqual(self.heard(), ["MAINPID=4711"])

    def test_abstract(self) -> None:
        """An address that begins with @ is an abstract one."""
        name = f"harn-test-{os.getpid()}-{id(self)}"
        receiver = self.bind(f"\0{name}")
        ServiceManager.of(self.clock, {"NOTIFY_SOCKET": f"@{name}"}).status("here")
        self.assertEqual(self.heard(receiver), ["STATUS=here"])

    def test_nobody(self) -> None:
        """Without the variable, or with an address that means nothing to us, nothing is sent."""
        for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:9999"}, {"NOTIFY_SOCKET": "relative"}):
            service_manager = ServiceManager.of(self.clock, environ)
            service_manager.ready("x")
            service_manager.main_pid(1)
            self.assertIsNone(service_manager.address)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_receiver_that_is_away(self) -> None:
        """A missing receiver, or one that is not a socket, does no harm; one that comes late gets later messages."""
        away = self.path + "-away"
        for address in (away, "/", "/" + "x" * 300, "/null\0byte"):
            service_manager = ServiceManager(self.clock, address)
            service_manager.ready("x")
            service_manager.alive()
        service_manager = ServiceManager(self.clock, away)
        service_manager.ready("lost")
        receiver = self.bind(away)
        self.addCleanup(os.unlink, away)
        service_manager.status("here")
        self.assertEqual(self.heard(receiver), ["STATUS=here"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_receiver_without_room(self) -> None:
        """What a receiver has no room for is sent again, in order; nothing is lost but the oldest of very many."""
        self.service_manager.ready("x")
        for number in range(1000):
            self.service_manager.status(str(number))
        told = self.heard()
        self.assertLess(len(told), 1000 - MOST_WAITING)
        while self.clock.getDelayedCalls():
            self.clock.advance(SECOND_TRY)
            told += self.heard()
        numbers = [int(each.removeprefix("STATUS=")) for each in told[1:]]
        self.assertEqual(numbers, sorted(numbers))
        self.assertEqual(numbers[-MOST_WAITING:], list(range(1000 - MOST_WAITING, 1000)))

    def test_close_without_room(self) -> None:
        """Closing gives up what was not sent, and leaves no timer."""
        for number in range(1000):
            self.service_manager.status(str(number))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.service_manager.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_main_pid_without_room(self) -> None:
        """That another process is the service is notified even when there was no room at once."""
        for number in range(1000):
            self.service_manager.status(str(number))
        self.service_manager.main_pid(4711)
        told: list[str] = []
        while self.clock.getDelayedCalls():
            told += self.heard()
            self.clock.advance(SECOND_TRY)
        self.assertEqual((told + self.heard())[-1], "MAINPID=4711")


class StatusTests(NotifyCase):
    def test_held(self) -> None:
        """A reload that is held says so."""
        text = status_of(report(status="needs_confirmation", error="it would remove 3 of 4 triggers"))
        self.assertEqual(text, "reload needs_confirmation: it would remove 3 of 4 triggers; generation 7 serves")

    @given(st.text())
    def test_one_line(self, text: str) -> None:
        """Whatever an error says, it is one short line of the status, never a message of its own."""
        self.service_manager.ready("x")
        self.lifecycle.emit(ReloadEnded(report(**{**FAILED, "error": text})))
        self.service_manager.status(text)
        for message in self.heard()[-2:]:
            status = message.removeprefix("READY=1\n")
            self.assertEqual(len(status.splitlines()), 1)
            self.assertTrue(status.startswith("STATUS="))
            self.assertLessEqual(len(status), len("STATUS=") + LONGEST_STATUS)

    def test_generation_survives_a_long_error(self) -> None:
        """However long the error, the line still ends with the live generation."""
        self.assertTrue(status_of(report(**{**FAILED, "error": "x" * 10_000})).endswith("; generation 6 serves"))


class WatchdogTests(NotifyCase):
    def test_half_the_interval(self) -> None:
        """It says at once that it lives, then at half the interval that is asked for, until it is stopped."""
        environ = {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}
        watchdog = Watchdog.of(self.clock, self.service_manager, environ)
        assert watchdog is not None
        watchdog.startService()
        self.assertEqual(self.heard(), ["WATCHDOG=1"])
        self.clock.advance(1.9)
        self.assertEqual(self.heard(), [])
        self.clock.advance(0.1)
        self.clock.advance(2)
        self.assertEqual(self.heard(), ["WATCHDOG=1"] * 2)
        self.successResultOf(watchdog.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_asked_for(self) -> None:
        """There is none unless this process is asked, with a number that makes sense."""
        for environ in (
            {},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "-5"},
            {"WATCHDOG_USEC": "soon"},
            {"WATCHDOG_USEC": "\N{SUPERSCRIPT TWO}"},
            {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"},
        ):
            self.assertIsNone(Watchdog.of(self.clock, self.service_manager, environ), environ)
        self.assertIsNotNone(Watchdog.of(self.clock, self.service_manager, {"WATCHDOG_USEC": "4000000"}))
