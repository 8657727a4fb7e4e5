"""``[orchestrator]`` on a running server: each reload applies what only a real server can show."""

from __future__ import annotations

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, trigger_text

TALKATIVE = """
    def talkative(event, context):
        for name, log in (("debug", context.log.debug), ("info", context.log.info), ("warn", context.log.warning)):
            log(f"{event.dedupe_key} at {name}")
        return on_event(event, context)
"""


class SettingsCase(ServerCase):
    """A server whose settings change."""

    def settings(self, server: ServerProcess, text: str, **more: str) -> None:
        """Reload with these settings: no trigger changes, and nothing needs a restart."""
        self.write_manifest(trigger_text("gh", **more), head=f"[orchestrator]\n{text}")
        report = self.assert_reloaded(server.reload(), unchanged=["gh"])
        self.assertEqual((report["requires_restart"], report["warnings"]), ([], []))


class EdgeTests(SettingsCase):
    """What is decided before an event is looked at."""

    def test_edge(self) -> None:
        """Origins, the size of a body and rates count for the next request, on a kept connection too."""
        server = self.serve()
        connection = server.connect()
        self.addCleanup(connection.close)
        numbers = iter(range(100))

        def post(size: int = 0, origin: str = "https://a.test") -> int:
            body = b'{"action": "opened", "x": "' + b"x" * size + b'"}'
            delivery = f"d{next(numbers)}"
            return connection.deliver("/triggers/gh", body, delivery=delivery, headers={"Origin": origin}).status

        self.assertEqual(post(), 200)
        self.settings(server, 'allowed_origins = ["https://b.test"]')
        self.assertEqual((post(), post(origin="https://b.test")), (403, 200))
        self.settings(server, 'allowed_origins = ["https://a.test"]\nmax_body_bytes = 200')
        self.assertEqual((post(), post(origin="https://b.test")), (200, 403))
        self.assertEqual((post(100), post(200)), (200, 413))
        self.settings(server, "max_body_bytes = 1000")
        self.assertEqual((post(200, "https://b.test"), post(1000)), (200, 413))
        self.settings(server, "admission = { rate = 0.001, burst = 2 }")
        self.assertEqual([post(1000), post(), post()], [200, 200, 429])
        self.settings(server, "admission = { global_rate = 0.001 }")
        self.assertEqual([post(), post()], [200, 503])
        self.settings(server, "admission = { max_pending_bytes = 100 }")
        self.assertEqual([post(), post(200)], [200, 503])
        self.settings(server, "")
        self.assertEqual([post(), post(200)], [200, 200])


class WorkTests(SettingsCase):
    """What runs."""

    def test_pumps(self) -> None:
        """More handlers run at once from the reload on, without waiting for one to end; then fewer."""
        self.write_manifest(
            trigger_text("gh", handler="handlers:held"), head="[orchestrator]\npumps.max_outstanding = 1"
        )
        server = self.serve()
        for number in range(1, 5):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=f"d{number}"))
        self.wait_begun("d1")
        self.settings(server, "pumps.max_outstanding = 3", handler="handlers:held")
        self.wait_begun("d1", "d2", "d3")
        self.settings(server, "pumps.max_outstanding = 1", handler="handlers:held")
        self.release("d1", "d2")
        self.wait_handled("d1", "d2")
        # The fourth would begin in the turn in which the second ends, and be seen before what comes after it.
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d5"))
        self.assertEqual(self.begun(), ["d1", "d2", "d3"])
        self.release()
        self.wait_handled("d3", "d4", "d5")

    def test_drain_items(self) -> None:
        """A shutdown begins no more deliveries than the last reload allows; the others stay for the next server."""
        head = "[orchestrator]\npumps.max_outstanding = 1"
        self.write_manifest(trigger_text("gh", handler="handlers:held"), head=head)
        server = self.serve()
        names = [f"d{number}" for number in range(40)]
        for name in names:
            self.assert_accepted(server.deliver("/triggers/gh", delivery=name))
        self.wait_begun("d0")
        self.settings(server, "pumps.max_outstanding = 1\ndrain.max_items = 1", handler="handlers:held")
        server.signal(15)
        server.wait_for_line("shutting down")
        self.release()
        self.assertEqual(server.wait(), 0, server.stderr)
        # Some may have run before the count began; with the default of 1024 all would have.
        self.assertTrue(0 < len(self.handled()) < len(names), self.handled())
        self.assertIn("drain truncated (max_items)", server.stderr)
        self.serve()
        self.wait_handled(*names)

    def test_drain_deadline(self) -> None:
        """A shutdown waits for what runs no longer than the last reload allows."""
        self.write_manifest(
            trigger_text("gh", handler="handlers:held"), head="[orchestrator]\ndrain.deadline_seconds = 600"
        )
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        self.settings(server, "drain.deadline_seconds = 0.2", handler="handlers:held")
        self.assertEqual(server.terminate(), 0, server.stderr)
        self.assertIn("drain truncated (deadline)", server.stderr)
        self.assertRegex(server.stderr, r"\d+ running, \d+ queued and \d+ waiting for a retry stay for the next server")


class LogLevelTests(SettingsCase):
    """``log_level``."""

    def setUp(self) -> None:
        """Write a handler that says something at several levels."""
        super().setUp()
        self.write_handlers(more=TALKATIVE)
        self.write_manifest(trigger_text("gh", handler="handlers:talkative"))

    def said(self, server: ServerProcess, key: str) -> list[str]:
        """Handle a delivery; give the levels at which that was logged, or nothing when no warning was, either."""
        self.assert_accepted(server.deliver("/triggers/gh", delivery=key))
        self.wait_handled(key)
        return [line.split()[-1] for line in list(server.lines) if f"{key} at " in line]

    def level(self, server: ServerProcess, level: str) -> None:
        """Reload with another level."""
        self.settings(server, f'log_level = "{level}"', handler="handlers:talkative")

    def wait_said(self, server: ServerProcess, key: str, *levels: str) -> None:
        """Handle a delivery, and wait until it was logged at just these levels, of which the last is ``warn``."""
        self.said(server, key)
        server.wait_for_line(f"{key} at warn")
        self.assertEqual([line.split()[-1] for line in list(server.lines) if f"{key} at " in line], list(levels))

    def test_reloaded(self) -> None:
        """Records appear from the reload on, and stop with another; announcements always pass."""
        server = self.serve()
        self.wait_said(server, "d1", "info", "warn")
        self.level(server, "debug")
        self.wait_said(server, "d2", "debug", "info", "warn")
        server.wait_for_line("trigger event accepted")  # single deliveries are for people at debug alone
        self.level(server, "warn")
        self.wait_said(server, "d3", "warn")
        self.level(server, "error")
        self.said(server, "d4")
        self.level(server, "info")
        self.wait_said(server, "d5", "info", "warn")
        # What an interpreter logs comes in order: had d4's warning been logged, it would be there by now.
        self.assertNotIn("d4 at", server.stderr)
        self.assertEqual(server.terminate(), 0)

    def test_first_manifest(self) -> None:
        """The level of the first manifest counts from the start; the line with the URL is there at any level."""
        self.write_manifest(
            trigger_text("gh", handler="handlers:talkative"), head='[orchestrator]\nlog_level = "critical"'
        )
        server = self.serve()
        self.said(server, "d1")
        self.level(server, "debug")
        self.wait_said(server, "d2", "debug", "info", "warn")
        self.assertNotIn("d1 at", server.stderr)

    def test_flag_wins(self) -> None:
        """With the flag, or its variable, the manifest's level is not applied, neither at start nor on reload."""
        given: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
            (("--log-level", "info"), {}),
            ((), {"HARN_ORCHESTRATOR_LOG_LEVEL": "info"}),
        )
        for told in given:
            arguments, environ = told
            self.write_manifest(
                trigger_text("gh", handler="handlers:talkative"), head='[orchestrator]\nlog_level = "error"'
            )
            server = self.serve(*arguments, environ={**self.environ, **environ})
            key = f"d{len(arguments)}"
            self.wait_said(server, f"{key}a", "info", "warn")
            self.level(server, "debug")
            self.wait_said(server, f"{key}b", "info", "warn")
            self.assertEqual(server.terminate(), 0)

    def test_json(self) -> None:
        """The file of JSON records follows the level, and so do the records of single deliveries."""
        server = self.serve("--log-format", "json")
        path = self.directory / "state" / "logs" / "orchestrator.log"
        self.said(server, "d1")
        wait_until(lambda: "d1 at warn" in path.read_text(), "the record of d1")
        self.level(server, "warn")
        self.said(server, "d2")
        wait_until(lambda: "d2 at warn" in path.read_text(), "the record of d2")
        self.level(server, "info")
        self.said(server, "d3")
        wait_until(lambda: "d3 at info" in path.read_text(), "the record of d3")
        text = path.read_text()
        self.assertNotIn("d2 at info", text)
        self.assertEqual(text.count("trigger event accepted"), 2)
