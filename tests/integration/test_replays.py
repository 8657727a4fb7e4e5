"""A bad deploy with a dedupe key, and its way back, by the commands of an operator on real servers."""

from __future__ import annotations

import json
from collections import Counter

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, trigger_text

KEYED = trigger_text("gh", extra="dedupe_key = 'event.dedupe_key'\n[triggers.retry]\nmax = 1\n")
BODY = b'{"action": "opened", "n": 0}'
BAD = """
def on_event(event, context):
    raise RuntimeError("bad deploy")
"""
GOOD = """
def on_event(event, context):
    return {"replay_of": context.replay_of}
"""


class ReplayTests(ServerCase):
    def states(self, server: ServerProcess) -> Counter[str]:
        """Count the deliveries of a server by state."""
        found = server.admin("GET", "/admin/deliveries?limit=1000").json()["deliveries"]
        return Counter(each["state"] for each in found)

    def bad_deploy(self, count: int) -> ServerProcess:
        """Start a server, and deliver events that become dead letters."""
        self.write_manifest(KEYED)
        self.write("handlers.py", BAD)
        server = self.serve()
        for number in range(count):
            self.assert_accepted(
                server.deliver("/triggers/gh", b'{"action": "opened", "n": %d}' % number, delivery=f"d{number}")
            )
        wait_until(lambda: self.states(server) == {"dead": count}, "the dead letters")
        return server

    def test_the_way_back(self) -> None:
        """Sent again, replayed by id and by expression, discarded: each dead letter ends once, offline too."""
        server = self.bad_deploy(12)
        self.write("handlers.py", GOOD)
        self.assertEqual(server.reload().status, 200)
        self.assert_accepted(server.deliver("/triggers/gh", BODY, delivery="d0"))
        self.assertEqual(server.deliver("/triggers/gh", BODY, delivery="d0").json()["status"], "duplicate_dropped")
        wait_until(lambda: self.states(server) == {"replayed": 1, "dead": 11, "done": 1}, "the repetition")
        dead = self.checked("deliveries", "--state", "dead")["deliveries"][-1]["event_id"]
        done = self.checked("replay", dead)
        self.assertEqual((done["operation"], done["matched"], done["replayed"], done["skipped"]), ("replay", 1, 1, 0))
        refused = self.orchestrator("replay", dead)
        self.assertEqual(refused.status, 1)
        self.assertIn("409", refused.stderr)
        self.assertEqual(self.orchestrator("replay", "--state", "dead").status, 2)
        where = ("--where", "event.provider_payload.raw.n >= `10`", "--state", "dead")
        listed = self.orchestrator("replay", *where, "--dry-run", "--json")
        self.assertEqual(listed.status, 1, "something would change")
        tried = json.loads(listed.stdout)
        self.assertEqual((tried["dry_run"], tried["matched"], tried["replayed"]), (True, 2, 0))
        done = self.checked("replay", *where, "--yes")
        self.assertEqual((done["matched"], done["replayed"]), (2, 2))
        wait_until(lambda: self.states(server) == {"replayed": 4, "dead": 8, "done": 4}, "the replays")
        found = server.admin("GET", f"/admin/deliveries/{done['items'][0]['replayed_as']}").json()
        self.assertEqual(
            (found["replay_of"], found["result"]), (done["items"][0]["event_id"], {"replay_of": found["replay_of"]})
        )
        self.assertEqual(server.admin("POST", "/admin/deliveries/trigger_evt_1/replay", {}).status, 404)
        record = server.records("audit.operations")[-2]["payload"]
        self.assertEqual((record["operation"], record["counts"]["replayed"]), ("replay", 2))
        server.terminate()
        done = self.checked(
            "discard", "--where", "event.provider_payload.raw.n < `5`", "--state", "dead", "--yes", "--json"
        )
        self.assertEqual((done["operation"], done["matched"], done["discarded"]), ("discard", 3, 3))
        self.assertEqual(self.checked("replay", "--state", "dead", "--yes")["replayed"], 5)
        server = self.serve()
        wait_until(
            lambda: self.states(server) == {"replayed": 9, "done": 9, "discarded": 3}, "what was replayed offline"
        )

    def test_killed_during_a_replay(self) -> None:
        """A replay with a rate continues in the next server after a kill, and repeats nothing."""
        server = self.bad_deploy(40)
        self.write("handlers.py", GOOD)
        self.assertEqual(server.reload().status, 200)
        begun = self.checked("replay", "--state", "dead", "--rate-limit", "8/s", "--yes")
        self.assertEqual((begun["matched"], begun["state"]), (40, "running"))
        for _ in range(2):
            server.kill()
            server = self.serve()
        wait_until(lambda: self.states(server) == {"replayed": 40, "done": 40}, "all replays")
        path = f"/admin/jobs/{begun['job']}"
        # The job ends one slice after its last item.
        wait_until(lambda: server.admin("GET", path).json()["state"] != "running", "the end of the job")
        job = server.admin("GET", path).json()
        self.assertEqual((job["state"], job["done"], job["skipped"]), ("done", 40, 0))
        paused = self.orchestrator("jobs", "--pause", str(begun["job"]))
        self.assertEqual(paused.status, 1, json.dumps(job))
