"""Two servers on one PostgreSQL: one that is killed, one that is stopped and comes back; dedupe, pauses, schedules."""

from __future__ import annotations

import signal
from collections import Counter
from itertools import pairwise

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, held_trigger, trigger_text
from tests.postgres import own_postgres

KEYED = trigger_text("gh", extra="dedupe_key = 'event.dedupe_key'\n")
BROKEN = """
if os.path.exists(os.environ.get("TEST_BROKEN", "/no/such/file")):
    raise RuntimeError("broken here")
"""
FAILING = """
def failing(event, context):
    raise RuntimeError("it fails")
"""
CIRCUIT = 'circuit = { failures = 2, reset = "10m" }\nretry = { max = 1 }'


class ServersTests(ServerCase):
    def setUp(self) -> None:
        """Start a PostgreSQL of the test's own."""
        super().setUp()
        self.postgres = own_postgres(self)
        self.head = f'[orchestrator]\nstore = "{self.postgres.url()}"\n[orchestrator.reload]\nallow_split = true\n'

    def second(self) -> ServerProcess:
        """Start a server on a state directory of its own."""
        broken = {"TEST_BROKEN": str(self.directory / "broken")}
        return self.serve(state_dir="state2", environ={**self.environ, **broken})

    def statuses(self, server: ServerProcess) -> dict[str, int]:
        """Count the servers that one lists, by status."""
        found = server.admin("GET", "/admin/servers").json()["servers"]
        return dict(Counter(each["status"] for each in found))

    def deliver(self, server: ServerProcess, name: str, path: str = "/triggers/gh") -> str:
        """Deliver an event that is accepted; return its id."""
        return self.assert_accepted(server.deliver(path, delivery=name), path.rpartition("/")[2])

    def test_a_life_of_two(self) -> None:
        """One promise holds over both: nothing accepted is lost, and nothing of a server that was stopped is kept."""
        self.write_handlers()
        self.write("failing.py", FAILING)
        failing = trigger_text("tries", handler="failing:failing", extra=CIRCUIT)
        single = held_trigger("single") + "max_outstanding = 1\n"
        self.write_manifest(KEYED, held_trigger("slow"), failing, single, head=self.head)
        first = self.serve()
        self.write_handlers("two")  # the second server's files differ, and do not serve
        second = self.second()
        wait_until(lambda: self.statuses(first) == {"serving": 2}, "both to serve")
        self.assertIn("handlers.py", second.stderr)
        self.deliver(first, "d0")
        self.assertEqual(second.deliver("/triggers/gh", delivery="d0").json()["status"], "duplicate_dropped")
        self.deliver(second, "d1")
        self.assertEqual({each["version"] for each in self.wait_handled("d0", "d1")}, {"one"})
        self.a_reload(first, second)
        self.a_split(first, second)
        self.a_pause(first, second)
        self.a_circuit(first, second)
        self.a_cancel(first, second)
        self.a_limit(first, second)
        self.a_stopped_server(first, second)

    def a_reload(self, first: ServerProcess, second: ServerProcess) -> None:
        """Reload one: both adopt, and the report names both; where one cannot, none does, and the report says why."""
        self.write_handlers("three", more=BROKEN)
        report = self.assert_reloaded(first.reload(), modified=["gh", "single", "slow"], unchanged=["tries"])
        self.assertEqual([each["status"] for each in report["servers"]], ["adopted"] * 2)
        self.assertEqual({each["generation"] for each in report["servers"]}, {report["generation"]})
        self.deliver(second, "r0")
        self.assertEqual({each["version"] for each in self.wait_handled("r0")}, {"three"})
        self.write("broken", "")
        self.write_handlers("four", more=BROKEN)
        refused = self.assert_failed(first.reload(), "resolve")
        self.assertEqual([each["status"] for each in refused["servers"]], ["unchanged", "refused"])
        self.assertIn("broken here", refused["error"])
        (self.directory / "broken").unlink()
        self.assertEqual(second.reload().status, 200)
        self.deliver(first, "r1")
        self.assertEqual({each["version"] for each in self.wait_handled("r1")}, {"four"})

    def a_split(self, first: ServerProcess, second: ServerProcess) -> None:
        """Reload one alone: the other stays as it is, until a reload of all brings them together."""
        self.write_handlers("five")
        report = first.admin("POST", "/admin/reload?here=true", {}).json()
        self.assertEqual(report["status"], "ok", report)
        self.assertEqual([each["status"] for each in report["servers"]], ["adopted", "unchanged"])
        for server, name, version in ((first, "t0", "five"), (second, "t1", "four")):
            self.deliver(server, name)
            self.assertEqual({each["version"] for each in self.wait_handled(name)}, {version})
        found = first.admin("GET", "/admin/servers").json()["servers"]
        self.assertEqual(len({each["generation"] for each in found}), 2)
        self.write_handlers("six")
        self.assertEqual(second.reload().status, 200)
        self.deliver(first, "t2")
        self.assertEqual({each["version"] for each in self.wait_handled("t2")}, {"six"})

    def a_pause(self, first: ServerProcess, second: ServerProcess) -> None:
        """Check that one of the first server holds on the second, and the other way round its end."""
        self.assertEqual(first.admin("POST", "/admin/triggers/gh/pause", {}).status, 200)
        wait_until(lambda: second.admin("GET", "/admin/inspect").json()["triggers"][0]["paused"], "the pause there")
        self.assertEqual(second.admin("POST", "/admin/triggers/gh/resume", {}).status, 200)
        wait_until(lambda: not first.admin("GET", "/admin/inspect").json()["triggers"][0]["paused"], "its end here")

    def a_circuit(self, first: ServerProcess, second: ServerProcess) -> None:
        """Check that failures on each open the circuit on both, and that one server closes it for both."""
        self.deliver(first, "c0", "/triggers/tries")
        self.deliver(second, "c1", "/triggers/tries")
        wait_until(lambda: self.circuit(first) == self.circuit(second) == "open", "the circuit to be open on both")
        self.assertEqual(first.admin("POST", "/admin/circuits/tries/close", {}).status, 200)
        wait_until(lambda: self.circuit(second) == "closed", "its end there")

    def a_cancel(self, first: ServerProcess, second: ServerProcess) -> None:
        """Check that what one server runs is cut off when the other is asked to cancel it."""
        event_id = self.deliver(first, "x0", "/triggers/slow")
        self.wait_begun("x0")
        answer = second.admin("POST", f"/admin/deliveries/{event_id}/cancel", {})
        self.assertEqual((answer.status, answer.json()["cancelled"]), (200, 1))
        self.assertEqual(first.admin("GET", f"/admin/deliveries/{event_id}").json()["state"], "skipped")

    def a_limit(self, first: ServerProcess, second: ServerProcess) -> None:
        """Check that of a trigger with one place one handler runs, on either server, and then the other's."""
        self.deliver(first, "p0", "/triggers/single")
        self.wait_begun("p0")
        self.deliver(second, "p1", "/triggers/single")
        self.deliver(second, "p2")
        self.wait_handled("p2")
        self.assertNotIn("p1", self.begun())
        self.release("p0")
        self.wait_begun("p1")
        self.release("p1")

    def circuit(self, server: ServerProcess) -> str:
        """Return the state of the circuit on a server."""
        return str(server.admin("GET", "/admin/circuits").json()["circuits"][0]["state"])

    def a_stopped_server(self, first: ServerProcess, second: ServerProcess) -> None:
        """Stop one: the other runs its deliveries; it comes back, and settles nothing; then kill the other one."""
        event_id = self.deliver(first, "s0", "/triggers/slow")
        self.wait_begun("s0")
        first.signal(signal.SIGSTOP)
        try:
            wait_until(lambda: self.begun().count("s0") == 2, "the other server to begin it")
            self.assertEqual(self.statuses(second), {"serving": 1})
        finally:
            first.signal(signal.SIGCONT)
        wait_until(lambda: self.statuses(second) == {"serving": 2}, "it to come back")
        self.release("s0")
        self.wait_handled("s0")
        wait_until(lambda: self.begun().count("s0") == self.handled().count("s0"), "both attempts to end", timeout=30)
        path = f"/admin/deliveries/{event_id}"
        wait_until(lambda: second.admin("GET", path).json()["state"] == "done", "its outcome to be kept")
        self.assertEqual(len(second.admin("GET", path).json()["attempts"]), 1)
        kinds = [each["kind"] for each in second.records("orchestrator.servers")]
        self.assertIn(("server_fenced", "server_rejoined"), pairwise(kinds))
        self.deliver(second, "k0", "/triggers/slow")
        self.wait_begun("k0")
        second.kill()
        wait_until(lambda: self.begun().count("k0") == 2, "the first server to begin it")
        self.release()
        self.wait_handled("k0")
        self.assertEqual(self.statuses(first), {"serving": 1})
        listed = self.orchestrator("servers")
        self.assertIn("serving", listed.stdout)
