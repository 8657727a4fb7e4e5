"""Schedules of a real server: ticks over a kill, a reload and a restart, and what fires next, with and without it."""

from __future__ import annotations

import json

from harn.testing.server import wait_until
from tests.integration.case import ServerCase

TRIGGER = """
[[triggers]]
id = "clock"
kind = "cron"
provider = "cron"
schedule = "* * * * * *"
catchup_mode = "all"
handler = "handlers:on_event"
"""


class ScheduleTests(ServerCase):
    def wait_ticks(self, count: int) -> None:
        """Wait until handlers finished so many ticks."""
        wait_until(lambda: len(set(self.handled())) >= count, f"{count} ticks")

    def test_each_second_once(self) -> None:
        """
        No second is left out or comes twice over a reload and a kill; a server killed between the events and anything
        else has kept both, or neither.
        """
        self.write_manifest(TRIGGER)
        offline = json.loads(self.orchestrator("schedule", "--limit", "3", "--json").stdout)
        self.assertEqual([each["trigger_id"] for each in offline["firings"]], ["clock"] * 3)
        server = self.serve()
        self.wait_ticks(3)
        self.write_handlers("two")
        self.assertEqual(server.reload().status, 200)
        self.wait_ticks(5)
        (firing,) = self.checked("schedule", "--limit", "1")["firings"]
        self.assertEqual((firing["trigger_id"], firing["timezone"]), ("clock", "UTC"))
        self.assertIsNotNone(firing["last_fired_at"])
        server.kill()
        again = self.serve()
        count = len(set(self.handled()))
        self.wait_ticks(count + 3)
        self.assertEqual(again.terminate(), 0, again.stderr)
        fired = sorted(int(key.rpartition(":")[2]) for key in set(self.handled()))
        self.assertEqual(fired, list(range(fired[0], fired[0] + len(fired))))
        accepted = [each["payload"]["event"]["dedupe_key"] for each in self.records_of("trigger.inbox.envelopes")]
        self.assertEqual(len(accepted), len(set(accepted)))

    def records_of(self, topic: str) -> list[dict[str, dict[str, dict[str, str]]]]:
        """Read the records of a topic from the store."""
        done = self.orchestrator("events", topic, "--json", "--limit", "1000")
        self.assertEqual(done.status, 0, done)
        return [json.loads(line) for line in done.stdout.splitlines()]


POLLING = """
[[triggers]]
id = "numbers"
kind = "poll"
provider = "poll"
every = "1s"
poll = "handlers:look"
handler = "handlers:on_event"
"""

LOOK = """
def look(cursor, context):
    found = (cursor or 0) + 1
    note(looked=found, binding=context.binding)
    if found == 4 and not os.path.exists(os.environ["TEST_RELEASE"]):
        open(os.environ["TEST_RELEASE"], "w").close()
        os.kill(os.getpid(), 9)
    return {"events": [{"payload": found, "dedupe_key": str(found)}], "cursor": found}
"""


class PollTests(ServerCase):
    def test_each_number_once(self) -> None:
        """
        A cursor continues over the death of the function's process, a reload, and the server's kill: each number is
        found, and handled once.
        """
        self.write_handlers("one", LOOK)
        self.write_manifest(POLLING)
        server = self.serve()
        wait_until(lambda: len(set(self.handled())) >= 5, "five numbers, the fourth at the second try")
        self.write_handlers("two", LOOK)
        self.assertEqual(server.reload().status, 200)
        server.kill()
        count = len(set(self.handled()))
        again = self.serve()
        wait_until(lambda: len(set(self.handled())) >= count + 3, "three more")
        (firing,) = self.checked("schedule", "--limit", "1")["firings"]
        self.assertEqual((firing["trigger_id"], firing["schedule"]), ("numbers", "every 1s"))
        self.assertEqual(again.terminate(), 0, again.stderr)
        numbers = sorted(int(key.rpartition(":")[2]) for key in set(self.handled()))
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        looked = [each["looked"] for each in self.seen() if "looked" in each]
        self.assertGreaterEqual(looked.count(4), 2)
