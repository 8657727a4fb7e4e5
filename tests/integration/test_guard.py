"""The guard against half a file on a real server: what ``--watch`` holds is reported everywhere, and harms nothing."""

from __future__ import annotations

import signal

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import trigger_text
from tests.integration.test_watch import WatchCase

WHOLE = tuple(trigger_text(f"t{index}") for index in range(4))


class GuardCase(WatchCase):
    """A server that watches a manifest of four triggers."""

    def begin(self) -> ServerProcess:
        """Start the server."""
        self.write_manifest(*WHOLE)
        return self.serve("--watch")

    def hold(self, server: ServerProcess, *triggers: str) -> None:
        """Write half a file, and wait until it is held."""
        self.write_manifest(*triggers)
        self.wait_last_reload(server, lambda last: last["status"] == "needs_confirmation")

    def gauge(self, server: ServerProcess) -> str:
        """Return the value of ``harn_reload_last_status``."""
        lines = server.request("GET", "/metrics").body.decode().splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith("harn_reload_last_status ")]
        return value

    def live(self, server: ServerProcess) -> list[str]:
        """Return the triggers in force."""
        return sorted(each["id"] for each in server.bindings() if each["state"] == "active")


class HeldTests(GuardCase):
    """What is held."""

    def test_reported(self) -> None:
        """State file, admin API, record, metric and log tell of it; all triggers serve; put back, all is well again."""
        server = self.begin()
        self.assertEqual(self.gauge(server), "1.0")
        self.hold(server, WHOLE[0])
        last = server.state()["last_reload"]
        self.assertEqual((last["source"], last["actor"]), ("file_watch", "watch"))
        for trigger_id in ("t1", "t2", "t3"):
            self.assertIn(trigger_id, last["error"])
        self.assertEqual((self.gauge(server), server.state()["generation"]), ("0.0", 1))
        waiting = server.generation()["waiting"]
        self.assertEqual((waiting["status"], waiting["removed"]), ("needs_confirmation", ["t1", "t2", "t3"]))
        self.assertEqual((waiting["generation"], server.generation()["last_failed"]), (1, None))
        [record] = [each for each in server.records("orchestrator.manifest") if each["kind"] == "reload_held"]
        self.assertEqual(record["payload"]["would_remove"], ["t1", "t2", "t3"])
        self.assertEqual(record["payload"]["generation"], 1)
        server.wait_for_line("needs_confirmation.*would remove 3 of 4 triggers")
        for index in range(4):
            self.assert_accepted(server.deliver(f"/triggers/t{index}", delivery=f"d{index}"), f"t{index}")
        self.wait_handled("d0", "d1", "d2", "d3")
        plan = self.orchestrator("plan")
        self.assertEqual(plan.status, 1, plan)
        self.assertIn("--watch would hold it back", plan.stdout)
        self.assertEqual(self.gauge(server), "0.0")  # a plan does not count as a reload
        self.write_manifest(*WHOLE)
        self.wait_last_reload(server, lambda last: last["status"] == "ok")
        live = server.generation()
        self.assertEqual((live["waiting"], live["generation"], live["drift"]), (None, 1, False))
        self.assertEqual(self.gauge(server), "1.0")

    def test_ends(self) -> None:
        """Made whole, with a change, it is adopted by itself; SIGHUP and a restart are explicit, and adopt it."""
        server = self.begin()
        self.hold(server, WHOLE[0])
        self.write_manifest(*WHOLE, trigger_text("t4"))
        self.wait_generation(server, 2)
        self.assertEqual(self.live(server), ["t0", "t1", "t2", "t3", "t4"])
        self.wait_last_reload(server, lambda last: last["status"] == "ok")
        self.assertIsNone(server.generation()["waiting"])
        self.hold(server, *WHOLE[:2])
        server.signal(signal.SIGHUP)
        self.wait_generation(server, 3)
        self.assertEqual(self.live(server), ["t0", "t1"])
        self.wait_last_reload(server, lambda last: last["status"] == "ok" and last["source"] == "signal")
        self.assertIsNone(server.generation()["waiting"])
        self.assertEqual(self.gauge(server), "1.0")
        self.hold(server, WHOLE[2])
        server = self.restart(server, "--watch")
        self.assertEqual(self.live(server), ["t2"])
        self.assertIsNone(server.generation()["waiting"])

    def test_broken_meanwhile(self) -> None:
        """Half a file that becomes a broken one is a failure, then held again; an explicit reload ends it."""
        server = self.begin()
        self.hold(server, WHOLE[0])
        self.write("harn.toml", "nonsense [")
        self.wait_last_reload(server, lambda last: last["status"] == "error")
        self.hold(server, WHOLE[1])
        done = self.orchestrator("reload")
        self.assertEqual(done.status, 0, done)
        self.assertEqual(self.live(server), ["t1"])
        live = server.generation()
        self.assertEqual((live["waiting"], live["last_failed"]), (None, None))


class NotHeldTests(GuardCase):
    """What is adopted without a question."""

    def test_half_and_one(self) -> None:
        """Half of the triggers may go, and so may one of two, or the last one with ``allow_empty``."""
        server = self.begin()
        for number, triggers in enumerate((WHOLE[:2], WHOLE[:1]), 2):
            self.write_manifest(*triggers)
            self.wait_generation(server, number)
        self.write_manifest("", head="[orchestrator]\nallow_empty = true\n")
        self.wait_generation(server, 4)
        wait_until(lambda: self.live(server) == [], "the last one to end")
        good = ("file_watch", "succeeded")
        self.assert_reloads(server, good, good, good)
