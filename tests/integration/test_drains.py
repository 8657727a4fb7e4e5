"""Drains on real servers: seen with all that they hold, watched to their end, moved and cancelled."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import datetime
from typing import Any

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, held_trigger, trigger_text

ONE_AT_A_TIME = "[orchestrator.pumps]\nmax_outstanding = 1\n"
HELD = held_trigger("gh")
OTHER = held_trigger("other")
LATER = """
from harn.handlers import RetryAfter


def later(event, context):
    if event.dedupe_key.startswith("w"):
        raise RetryAfter(600)
    return on_event(event, context)
"""


class DrainCase(ServerCase):
    """A server of which something drains."""

    def modify(self, server: ServerProcess, version: str = "two") -> None:
        """Reload with other code."""
        self.write_handlers(version)
        report = server.reload().json()
        self.assertIn("gh", report["summary"]["modified"], report)

    def drains(self, server: ServerProcess) -> list[dict[str, Any]]:
        """Return the draining versions."""
        answer = server.admin("GET", "/admin/drains")
        self.assertEqual(answer.status, 200, answer)
        found: list[dict[str, Any]] = answer.json()["drains"]
        return found

    def act(self, server: ServerProcess, action: str, binding: str) -> dict[str, Any]:
        """Move or cancel; give the answer."""
        answer = server.admin("POST", f"/admin/drains/{action}", {"binding": binding})
        self.assertEqual(answer.status, 200, answer)
        found: dict[str, Any] = answer.json()
        return found

    def letters(self, server: ServerProcess, count: int) -> dict[str, dict[str, Any]]:
        """Wait for so many dead letters; give them by the provider's id."""
        records = self.wait_records(server, "trigger.dlq", count)
        self.assertEqual(len(records), count)
        return {each["payload"]["event"]["dedupe_key"]: each["payload"] for each in records}

    def wait_drained(self, server: ServerProcess) -> None:
        """Wait until nothing drains."""
        wait_until(lambda: not self.drains(server), "all to drain")


class SightTests(DrainCase):
    """What is seen of drains."""

    def test_listed(self) -> None:
        """Each draining version is listed with age, counts, oldest event and deadline, the oldest first."""
        self.write_manifest(HELD, head=ONE_AT_A_TIME + '[orchestrator.reload]\ndrain_timeout = "10m"\n')
        server = self.serve()
        self.assertEqual(self.drains(server), [])
        ids = [self.assert_accepted(server.deliver("/triggers/gh", delivery=f"d{index}")) for index in range(3)]
        self.wait_begun("d0")
        self.modify(server, "two")
        ids.append(self.assert_accepted(server.deliver("/triggers/gh", delivery="d3"), binding="gh@v2"))
        self.modify(server, "three")
        first, second = self.drains(server)
        counts = ("binding", "trigger_id", "version", "generation", "in_flight", "running", "queued", "waiting")
        self.assertEqual([first[name] for name in counts], ["gh@v1", "gh", 1, 1, 3, 1, 2, 0])
        self.assertEqual([second[name] for name in counts], ["gh@v2", "gh", 2, 2, 1, 0, 1, 0])
        self.assertEqual([each["oldest_event"]["event_id"] for each in (first, second)], [ids[0], ids[3]])
        since, deadline = (datetime.fromisoformat(first[name]) for name in ("draining_since", "deadline"))
        self.assertLess(abs((deadline - since).total_seconds() - 600.0), 1.0)
        self.assertGreaterEqual(first["age_seconds"], second["age_seconds"])
        wait_until(lambda: self.drains(server)[0]["age_seconds"] > first["age_seconds"], "it to grow older")
        listed = self.orchestrator("drains")
        self.assertEqual(listed.status, 0, listed)
        lines = listed.stdout.splitlines()
        self.assertEqual((lines[0], len(lines)), ("Drains:", 3))
        self.assertIn("binding=gh@v1", lines[1])
        # A delivery that is done is no longer counted: the next is the oldest.
        self.release("d0")
        self.wait_begun("d1")
        wait_until(lambda: self.drains(server)[0]["oldest_event"]["event_id"] == ids[1], "the next to be the oldest")
        self.assertEqual([self.drains(server)[0][name] for name in ("in_flight", "running", "queued")], [2, 1, 1])
        self.release()
        self.wait_drained(server)
        versions = {each["key"]: each["binding"] for each in self.wait_handled("d0", "d1", "d2", "d3")}
        self.assertEqual(versions, {"d0": "gh@v1", "d1": "gh@v1", "d2": "gh@v1", "d3": "gh@v2"})

    def test_removed_trigger(self) -> None:
        """The version of a removed trigger drains with its waiting retries; moved, they are dead letters."""
        self.write_handlers(more=LATER)
        self.write_manifest(trigger_text("gh", handler="handlers:later"), OTHER)
        server = self.serve()
        for key in ("w1", "w2"):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=key))
        self.wait_records(server, "trigger.attempts", 2)
        self.write_manifest(OTHER)
        self.assert_reloaded(server.reload(), removed=["gh"], unchanged=["other"])
        [drain] = self.drains(server)
        self.assertEqual([drain[name] for name in ("running", "queued", "waiting")], [0, 0, 2])
        self.assertEqual(self.act(server, "move", "gh@v1"), {"binding": "gh@v1", "moved": 2, "to": None})
        letters = self.letters(server, 2)
        self.assertEqual({each["reason"] for each in letters.values()}, {"binding_removed"})
        self.wait_drained(server)

    def test_watch(self) -> None:
        """``--watch`` prints what changes, and ends by itself when nothing drains any more."""
        self.write_manifest(HELD)
        server = self.serve()
        for key in ("d1", "d2"):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=key))
        self.wait_begun("d1", "d2")
        self.modify(server)
        command = (sys.executable, "-u", "-m", "harn", "orchestrator", "drains", "--watch", "--state-dir", "state")
        watching = subprocess.Popen(
            command, cwd=self.directory, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        output = watching.stdout
        assert output is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(iter(output.readline, "")), daemon=True)
        reader.start()
        self.addCleanup(watching.wait)
        self.addCleanup(watching.kill)
        wait_until(lambda: any("running=2" in line for line in lines), "both to be shown")
        self.assertIsNone(watching.poll())
        self.release("d1")
        wait_until(lambda: any("running=1" in line for line in lines), "one to be shown")
        self.release("d2")
        wait_until(lambda: watching.poll() is not None, "the command to end")
        reader.join(5.0)
        output.close()
        self.assertEqual(watching.returncode, 0, lines)
        self.assertEqual([line.strip() for line in lines[-2:]], ["- binding=gh@v1 drained", "nothing drains"])


class OrderTests(DrainCase):
    """Moving and cancelling."""

    def test_cancel(self) -> None:
        """A running handler is cut off, what was queued never begins: dead letters; bystanders and the new continue."""
        self.write_manifest(HELD, OTHER, head="[orchestrator.pumps]\nmax_outstanding = 2\n")
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/other", delivery="bystander"), "other")
        ids = {key: self.assert_accepted(server.deliver("/triggers/gh", delivery=key)) for key in ("d1", "d2", "d3")}
        self.wait_begun("bystander", "d1")
        self.modify(server)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="new"), binding="gh@v2")
        self.assertEqual(self.act(server, "cancel", "gh@v1"), {"binding": "gh@v1", "cancelled": 3})
        letters = self.letters(server, 3)
        self.assertEqual({key: each["event"]["id"] for key, each in letters.items()}, ids)
        self.assertEqual({each["reason"] for each in letters.values()}, {"drain_cancelled"})
        self.assertEqual({each["binding_key"] for each in letters.values()}, {"gh@v1"})
        self.assertNotEqual(letters["d1"]["final_error"], letters["d2"]["final_error"])
        self.assertEqual(letters["d2"]["final_error"], letters["d3"]["final_error"])
        # The place of what was cut off is free.
        self.wait_begun("new")
        self.release()
        self.wait_handled("new", "bystander")
        self.wait_drained(server)
        self.assertEqual(sorted(self.handled()), ["bystander", "new"])
        self.assertEqual(sorted(self.begun()), ["bystander", "d1", "new"])
        metrics = server.request("GET", "/metrics").body.decode()
        self.assertIn('harn_trigger_dlq_total{reason="drain_cancelled",trigger_id="gh"} 3.0', metrics)
        # A restart brings nothing of it back.
        server = self.restart(server)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="last"))
        self.wait_handled("last")
        self.assertEqual(sorted(self.handled()), ["bystander", "last", "new"])
        self.letters(server, 3)

    def test_cancel_a_stuck_handler(self) -> None:
        """A handler that heeds nothing is ended with its process; a bystander in it runs again, its attempt unused."""
        self.write_handlers(
            more="""
            def stuck(event, context):
                note(began=event.dedupe_key)
                while True:
                    pass
            """
        )
        self.write_manifest(trigger_text("gh", handler="handlers:stuck", extra='timeout = "10m"'), OTHER)
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/other", delivery="bystander"), "other")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("bystander", "d1")
        self.write_manifest(trigger_text("gh"), OTHER)
        self.assert_reloaded(server.reload(), modified=["gh"], unchanged=["other"])
        self.assertEqual(self.act(server, "cancel", "gh@v1"), {"binding": "gh@v1", "cancelled": 1})
        self.assertEqual(self.letters(server, 1)["d1"]["reason"], "drain_cancelled")
        self.release()
        [seen] = self.wait_handled("bystander")
        self.assertEqual(seen["attempt"], 1)
        self.wait_drained(server)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"), binding="gh@v2")
        self.wait_handled("d2")

    def test_move(self) -> None:
        """What has not begun runs on the newest version at once, and only what ran drains on."""
        self.write_manifest(HELD, head=ONE_AT_A_TIME)
        server = self.serve()
        for key in ("d1", "d2", "d3"):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=key))
        self.wait_begun("d1")
        self.modify(server, "two")
        self.modify(server, "three")
        self.assertEqual(self.act(server, "move", "gh@v1"), {"binding": "gh@v1", "moved": 2, "to": "gh@v3"})
        [drain] = self.drains(server)
        found = [drain[name] for name in ("binding", "in_flight", "running", "queued", "moved", "deadline")]
        self.assertEqual(found, ["gh@v1", 1, 1, 0, True, None])
        self.assertEqual(self.act(server, "move", "gh@v1")["moved"], 0)
        # After a crash they are still the newest version's.
        server.kill()
        self.release()
        server = self.serve()
        seen = {each["key"]: (each["version"], each["binding"]) for each in self.wait_handled("d1", "d2", "d3")}
        expected = {"d1": ("one", "gh@v1"), "d2": ("three", "gh@v3"), "d3": ("three", "gh@v3")}
        self.assertEqual(seen, expected)
        self.wait_drained(server)

    def test_refused(self) -> None:
        """What does not drain is 404 with what does; bodies that mean nothing are 400; strangers get 401."""
        self.write_manifest(HELD)
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        for action in ("move", "cancel"):
            target = f"/admin/drains/{action}"
            nothing = self.assert_problem(server.admin("POST", target, {"binding": "gh@v1"}), 404)
            self.assertIn("nothing drains", nothing["detail"])
            for body in ({}, {"binding": 1}, {"binding": None}, {"binding": "gh@v1", "x": 1}):
                self.assert_problem(server.admin("POST", target, body), 400)
            self.assert_problem(server.request("POST", target, b'{"binding": "gh@v1"}'), 401)
        self.modify(server)
        # The one that is live cannot be cancelled.
        problem = self.assert_problem(server.admin("POST", "/admin/drains/cancel", {"binding": "gh@v2"}), 404)
        self.assertIn("gh@v1", problem["detail"])
        self.assertEqual(self.orchestrator("drains", "--watch", "--move", "gh@v1").status, 2)
        self.release()
        self.wait_handled("d1")
