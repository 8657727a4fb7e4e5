"""A whole server on PostgreSQL: what it accepts outlives its own death, and the database's."""

from __future__ import annotations

import signal
from collections import Counter

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, held_trigger, trigger_text
from tests.postgres import own_postgres

KEYED = trigger_text("gh", extra="dedupe_key = 'event.dedupe_key'\n[triggers.retry]\nmax = 1\n")
BAD = """

def failing(event, context):
    raise RuntimeError("bad deploy")
"""


class PostgresTests(ServerCase):
    def setUp(self) -> None:
        """Start a PostgreSQL of the test's own, which it may kill."""
        super().setUp()
        self.postgres = own_postgres(self)
        self.head = f'[orchestrator]\nstore = "{self.postgres.url()}"\n'

    def states(self, server: ServerProcess) -> Counter[str]:
        """Count the deliveries of a server by state."""
        found = server.admin("GET", "/admin/deliveries?limit=1000").json()["deliveries"]
        return Counter(each["state"] for each in found)

    def deliver(self, server: ServerProcess, name: str, path: str = "/triggers/gh") -> None:
        """Deliver an event that is accepted."""
        self.assert_accepted(server.deliver(path, delivery=name), path.rpartition("/")[2])

    def test_a_life(self) -> None:
        """Handled, dead, replayed, reloaded, rolled back; killed, and PostgreSQL killed; nothing accepted is lost."""
        self.write_handlers(more=BAD)
        triggers = (KEYED, held_trigger("slow"))
        self.write_manifest(KEYED.replace("on_event", "failing"), triggers[1], head=self.head)
        server = self.serve()
        self.deliver(server, "d0")
        wait_until(lambda: self.states(server) == {"dead": 1}, "the dead letter")
        self.write_manifest(*triggers, head=self.head)
        self.assert_reloaded(server.reload(), modified=["gh"], unchanged=["slow"])
        dead = self.checked("deliveries", "--state", "dead")["deliveries"][0]["event_id"]
        self.assertEqual(self.checked("replay", dead)["replayed"], 1)
        self.wait_handled("d0")
        self.deliver(server, "d1")
        self.wait_handled("d1")
        self.assertEqual(server.deliver("/triggers/gh", delivery="d1").json()["status"], "duplicate_dropped")
        self.assertEqual(self.orchestrator("rollback").status, 0)
        self.assertEqual(self.checked("history")[0]["recalled"], 1)
        self.assert_reloaded(server.reload(), modified=["gh"], unchanged=["slow"])
        self.a_killed_server(server)

    def a_killed_server(self, server: ServerProcess) -> None:
        """Kill the server while it runs and holds deliveries; the next one finishes them."""
        self.deliver(server, "s0", "/triggers/slow")
        self.wait_begun("s0")
        server.kill()
        self.assertEqual(self.checked("deliveries", "--state", "ready")["deliveries"][0]["trigger_id"], "slow")
        self.assertIn("pg_dump", self.orchestrator("backup", "x.harn").stderr)
        self.release()
        server = self.serve()
        self.wait_handled("s0")
        self.assertEqual(server.state()["event_log_backend"], "postgresql")
        self.assertEqual(server.state()["event_log_location"], self.postgres.url().replace("harn@", ""))
        self.a_database_away(server)

    def a_database_away(self, server: ServerProcess) -> None:
        """Kill PostgreSQL, pause it, and start it: 503 meanwhile, and all continues by itself."""
        self.postgres.stop(signal.SIGKILL)
        answer = wait_until(lambda: self.refused(server, "a0"), "a refusal")
        assert answer is not None
        ready = wait_until(lambda: self.unready(server), "not ready")
        self.assertIn("event log away", str(ready))
        self.postgres.start()
        wait_until(lambda: server.request("GET", "/readyz").status == 200, "ready again")
        self.deliver(server, "a0")
        self.wait_handled("a0")
        self.assertEqual(server.terminate(), 0, server.stderr)
        self.postgres.stop()
        refused = self.serve(ready=False)
        self.assertIn("start PostgreSQL", self.ended(refused))
        self.postgres.start()
        server = self.serve()
        self.assertEqual(self.states(server)["replayed"], 1)

    def refused(self, server: ServerProcess, name: str) -> bool:
        """Return whether a delivery gets 503 with the time to try again."""
        answer = server.deliver("/triggers/gh", delivery=name)
        return answer.status == 503 and "retry-after" in answer.headers

    def unready(self, server: ServerProcess) -> str | None:
        """Return the answer of readiness while the server is not ready."""
        answer = server.request("GET", "/readyz")
        return None if answer.status == 200 else answer.body.decode()
