"""The system's clock is set forward and back beneath a server that serves."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from tests.integration.case import ServerCase, trigger_text

AHEAD = """
import os, time

_time = time.time


def _ahead():
    try:
        with open(os.environ["TEST_CLOCK"]) as file:
            return float(file.read() or 0)
    except FileNotFoundError:
        return 0.0


time.time = lambda: _time() + _ahead()
"""
"""A module that Python imports when it starts: a file says by how many seconds the process's wall clock is wrong."""


class ClockTests(ServerCase):
    def set_ahead(self, seconds: float) -> None:
        """Set the server's wall clock."""
        self.replace("clock", str(seconds))

    def assert_stamp(self, stamp: Any, ahead: float) -> None:
        """See that a stamp is a time of day of just now, by the server's wall clock."""
        at = stamp if isinstance(stamp, float) else datetime.fromisoformat(stamp).timestamp()
        self.assertTrue(abs(at - time.time() - ahead) < 120.0, stamp)

    def test_steps(self) -> None:
        """No step ends a connection, a request or an attempt; what is stamped is the time of day."""
        self.write("site/sitecustomize.py", AHEAD)
        self.environ |= {"TEST_CLOCK": str(self.directory / "clock"), "PYTHONPATH": str(self.directory / "site")}
        self.write_manifest(trigger_text("gh", handler="handlers:held"), trigger_text("other"))
        server = self.serve()
        self.assert_stamp(server.state()["started_at"], 0.0)
        kept = server.connect()
        self.assert_accepted(kept.deliver("/triggers/gh", delivery="held"))
        self.wait_begun("held")
        for number, ahead in enumerate((36000.0, -36000.0)):
            self.set_ahead(ahead)
            self.assert_accepted(kept.deliver("/triggers/other", delivery=f"d{number}"), "other")
            self.wait_handled(f"d{number}")
            self.assert_accepted(server.deliver("/triggers/other", delivery=f"e{number}"), "other")
            self.wait_handled(f"e{number}")
            self.assertTrue(kept.is_open)
            self.assertEqual(server.reload("?force=true").status, 200)
            self.assert_stamp(server.state()["last_reload"]["at"], ahead)
            self.assert_stamp(server.records("trigger.inbox.envelopes")[-1]["occurred_at"], ahead)
            self.assert_stamp(server.records("orchestrator.manifest")[-1]["occurred_at"], ahead)
        self.release()
        (handled,) = self.wait_handled("held")
        self.assertEqual(handled["attempt"], 1)
        self.assert_stamp(self.wait_records(server, "trigger.attempts", 5)[-1]["occurred_at"], -36000.0)
        self.assertEqual(server.terminate(), 0)
        self.assert_stamp(server.state()["stopped_at"], -36000.0)
