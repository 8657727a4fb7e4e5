"""The service manager's side: which datagrams come in which order, the socket that it passes, and what handlers see."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from typing import Any

from harn.testing.server import SERVE, TWISTD, ServerProcess, is_alive, wait_until
from tests.integration.case import trigger_text
from tests.integration.test_tls import TLS, TLSCase
from tests.integration.test_upgrade import UpgradeCase

PASSING = """
import os, socket, sys
kind = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM}[sys.argv[1]]
passed = socket.socket(type=kind)
passed.bind(("127.0.0.1", 0))
if kind == socket.SOCK_STREAM:
    passed.listen()
os.dup2(passed.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="harn.socket")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Starts what follows as systemd does for a socket unit."""

Message = dict[str, str]


def monotonic_usec() -> int:
    """Return the time in the form of ``MONOTONIC_USEC``."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


class NotifiedCase(UpgradeCase):
    """Servers that notify."""

    def setUp(self) -> None:
        """Bind the receiver."""
        super().setUp()
        directory = tempfile.mkdtemp()  # trial's own is too long for a socket's address
        self.addCleanup(shutil.rmtree, directory)
        address = os.path.join(directory, "notify")
        self.receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.receiver.close)
        self.receiver.bind(address)
        self.receiver.setblocking(False)
        self.environ["NOTIFY_SOCKET"] = address
        self.messages: list[Message] = []

    def heard(self) -> list[Message]:
        """Return all that has arrived so far, but for signs of life."""
        while True:
            try:
                lines = self.receiver.recv(65536).decode().split("\n")
            except BlockingIOError:
                return [each for each in self.messages if "WATCHDOG" not in each]
            self.messages.append(dict(line.split("=", 1) for line in lines))

    def wait_heard(self, count: int) -> list[Message]:
        """Wait for so many messages; give them."""
        wait_until(lambda: len(self.heard()) >= count, f"{count} messages; there: {self.messages}")
        return self.heard()

    def kinds(self, messages: list[Message]) -> list[str]:
        """Return each message."""
        names = ("READY", "RELOADING", "STOPPING", "MAINPID", "STATUS")
        return [next(name for name in names if name in each) for each in messages]


class NotifyTests(NotifiedCase):
    """``Type=notify-reload``."""

    def test_start_reload_stop(self) -> None:
        """Ready when it serves; each reload, good or bad, is notified and ends with ready; then the end."""
        server = self.serve()
        self.assertEqual(self.wait_heard(2), [{"STATUS": "starting"}, {"READY": "1", "STATUS": "generation 1 serves"}])
        self.write_handlers("two")
        before = monotonic_usec()
        server.signal(signal.SIGHUP)
        reloading, ready = self.wait_heard(4)[2:]
        self.assertTrue(before < int(reloading["MONOTONIC_USEC"]) < monotonic_usec())
        self.assertEqual(ready, {"READY": "1", "STATUS": "generation 2 serves"})
        self.write_manifest(trigger_text("gh", extra="colour = 1"))
        server.signal(signal.SIGHUP)
        reloading, ready = self.wait_heard(6)[4:]
        self.assertEqual((reloading["RELOADING"], ready["READY"]), ("1", "1"))
        self.assertRegex(ready["STATUS"], r"\Areload failed at validate: .*colour.*; generation 2 serves\Z")
        self.write_manifest()
        server.reload("?dry_run=true")
        server.reload("?force=true")
        self.assertEqual(self.wait_heard(8)[7], {"READY": "1", "STATUS": "generation 3 serves"})
        self.assertEqual(server.terminate(), 0, server.stderr)
        found = self.kinds(self.heard())
        self.assertEqual(found, ["STATUS", "READY", *["RELOADING", "READY"] * 3, "STOPPING"])

    def test_start_that_fails(self) -> None:
        """A server that does not come to serve is never ready."""
        self.write_manifest(trigger_text("gh", extra="colour = 1"))
        self.ended(self.serve(ready=False))
        self.assertEqual(self.kinds(self.heard()), ["STATUS"])

    def test_storm(self) -> None:
        """
        However many signals come, each RELOADING is followed by a READY, and the last reload began after the last
        signal: systemd waits for just that.
        """
        server = self.serve()
        self.wait_heard(2)
        for count in range(60):
            self.write_handlers(f"v{count % 3}")
            last = monotonic_usec()
            server.signal(signal.SIGHUP)

        def is_over() -> bool:
            reloads = [each for each in self.heard() if "RELOADING" in each]
            began = bool(reloads) and int(reloads[-1]["MONOTONIC_USEC"]) >= last
            return began and "READY" in self.heard()[-1]

        wait_until(is_over, "the last reload")
        messages = self.heard()[2:]
        self.assertEqual(self.kinds(messages), ["RELOADING", "READY"] * (len(messages) // 2))
        times = [int(each["MONOTONIC_USEC"]) for each in messages[::2]]
        self.assertEqual(times, sorted(set(times)))
        self.assertLess(len(times), 60)

    def test_early_signal(self) -> None:
        """
        A signal within the first moments either ends the process before harn handles it, and nothing was said, or is
        followed once the server is ready, and the protocol is kept.
        """
        # As a service manager starts it: under nohup the signal would be ignored before harn handles it.
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_DFL))
        for delay in (0.0, 0.05, 0.1, 0.2, None):
            self.heard()
            self.messages.clear()
            server = self.serve(ready=False)
            if delay is None:
                self.wait_heard(1)
            else:
                sent_at = time.monotonic() + delay
                wait_until(lambda at=sent_at: time.monotonic() >= at, "the moment")
            server.signal(signal.SIGHUP)
            wait_until(lambda it=server: it.process.poll() is not None or len(self.heard()) >= 4, "the server")
            if server.process.poll() is None:
                self.assertEqual(self.kinds(self.heard()), ["STATUS", "READY", "RELOADING", "READY"])
                self.assertEqual(server.terminate(), 0, server.stderr)
            else:
                self.assertIsNotNone(delay, "a signal was lost that came after the server was heard of")
                self.assertEqual((server.process.returncode, self.heard()), (-signal.SIGHUP, []))

    def test_watchdog(self) -> None:
        """While it serves it says that it lives, and does not when it hangs."""
        server = self.serve(environ={**self.environ, "WATCHDOG_USEC": "200000"})

        def alive() -> int:
            self.heard()
            return sum("WATCHDOG" in each for each in self.messages)

        wait_until(lambda: alive() >= 5, "five signs of life")
        server.signal(signal.SIGSTOP)
        wait_until(lambda: alive() == alive(), "silence")
        before, at = alive(), time.monotonic() + 0.5
        wait_until(lambda: time.monotonic() >= at, "half a second")
        self.assertEqual(alive(), before)
        server.signal(signal.SIGCONT)
        wait_until(lambda: alive() > before, "a sign of life")

    def test_receiver_that_goes(self) -> None:
        """A service manager that is gone costs nothing."""
        server = self.serve()
        self.receiver.close()
        os.unlink(self.environ["NOTIFY_SOCKET"])
        self.assertEqual(server.reload("?force=true").status, 200)
        self.assertEqual(server.terminate(), 0, server.stderr)

    def test_handlers(self) -> None:
        """Handlers cannot speak for the server: they do not see where."""
        self.write_handlers(
            more="""
            def look(event, context):
                note(names=sorted(os.environ))
                return on_event(event, context)
            """
        )
        self.write_manifest(trigger_text("gh", handler="handlers:look"))
        server = self.serve(environ={**self.environ, "WATCHDOG_USEC": "9000000", "LISTEN_FDS": "1"})
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        [names] = [each["names"] for each in self.seen() if "names" in each]
        self.assertIn("TEST_SEEN", names)
        self.assertEqual([name for name in names if name.startswith(("NOTIFY", "WATCHDOG", "LISTEN"))], [])

    def test_upgrade(self) -> None:
        """In an upgrade the old program names the new one before that is ready; the old one is silent then."""
        server = self.serve(environ={**self.environ, "WATCHDOG_USEC": "3600000000"})
        self.wait_heard(2)
        new = self.upgrade(server, server.pid)
        self.assertEqual(self.old_status(server), 0)
        status, main, ready = self.wait_heard(5)[2:]
        self.assertEqual(status, {"STATUS": f"process {new} starts to take over; generation 1 serves"})
        self.assertEqual((main, ready), ({"MAINPID": str(new)}, {"READY": "1", "STATUS": "generation 1 serves"}))
        os.kill(new, signal.SIGHUP)
        self.assertEqual(self.kinds(self.wait_heard(7)[5:]), ["RELOADING", "READY"])
        os.kill(new, signal.SIGTERM)
        self.wait_ended(new)
        self.assertEqual(self.kinds(self.heard()[7:]), ["STOPPING"])
        self.assertEqual(sum("WATCHDOG" in each for each in self.messages), 2)

    def test_upgrade_that_fails(self) -> None:
        """An upgrade that fails is in the status; the server serves on, and says nothing else."""
        server = self.serve()
        self.write_manifest(trigger_text("gh", extra="colour = 1"))
        self.begin(server, server.pid)
        failed = self.wait_heard(4)[3]
        self.assertRegex(failed["STATUS"], r"\Aupgrade failed: .* status 1 .*; generation 1 serves\Z")
        self.assertEqual(self.kinds(self.heard()), ["STATUS", "READY", "STATUS", "STATUS"])


class ActivationCase(UpgradeCase):
    """Servers to which a socket is passed."""

    def passing(self, kind: str = "stream", **more: Any) -> ServerProcess:
        """Start a server with a socket of this kind."""
        launcher = (sys.executable, "-c", PASSING, kind, *more.pop("launcher", SERVE))
        return self.serve(*more.pop("arguments", ()), launcher=launcher, **more)


class ActivationTests(ActivationCase):
    """Sockets that were passed."""

    def test_served(self) -> None:
        """The socket is served instead of --bind, and the state file has its address; an upgrade passes it on."""
        server = self.passing(bind="192.0.2.1:1")
        server.wait_for_line("listening on the socket that the service manager passed")
        self.assertRegex(server.url, r"\Ahttp://127\.0\.0\.1:\d+\Z")
        self.assertEqual(server.state()["listener_url"], server.url)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        new = self.upgrade(server, server.pid)
        self.assertEqual(self.old_status(server), 0)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"))
        self.assertEqual((server.state()["pid"], server.state()["listener_url"]), (new, server.url))
        self.assertTrue(is_alive(new))

    def test_twistd(self) -> None:
        """So it does under twistd."""
        server = self.passing(bind="192.0.2.1:1", launcher=(*TWISTD, "-n", "harn-orchestrator"))
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))

    def test_unfit(self) -> None:
        """A socket that cannot be served keeps the server from starting, in words."""
        self.assertIn("SOCK_DGRAM", self.ended(self.passing("dgram", ready=False)))

    def test_for_another_process(self) -> None:
        """Variables for another process are ignored."""
        server = self.serve(environ={**self.environ, "LISTEN_FDS": "1", "LISTEN_PID": "1"})
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))


class TLSActivationTests(TLSCase, ActivationCase):
    """With TLS."""

    def test_served(self) -> None:
        """A passed socket speaks TLS, before and after an upgrade."""
        server = self.passing(arguments=TLS)
        for key in ("d1", "d2"):
            connection = server.connect(context=self.context())
            self.assert_accepted(connection.deliver("/triggers/gh", delivery=key))
            connection.close()
            if key == "d1":
                self.upgrade(server, server.pid)
                self.assertEqual(self.old_status(server), 0)
