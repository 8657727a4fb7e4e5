"""Duplicates: their detection, their answer, and how long keys are remembered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from harn.testing.server import Answer
from tests.integration.case import ServerCase, SharedServerCase, trigger_text


def keyed(expression: str = "event.dedupe_key", trigger_id: str = "gh", more: str = "") -> str:
    """Write a trigger with a dedupe key."""
    return trigger_text(trigger_id, extra=f"dedupe_key = '{expression}'\n{more}")


class DedupeCase(ServerCase):
    """A trigger with a dedupe key."""

    def assert_duplicate(self, answer: Answer, trigger_id: str = "gh") -> None:
        """See that a delivery was dropped as a duplicate, with exactly these keys."""
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(answer.json(), {"status": "duplicate_dropped", "trigger_id": trigger_id})
        self.assertIn("harn-generation", answer.headers)


class DedupeTests(DedupeCase, SharedServerCase):
    """One event for one key. The keys of each test are its own, since the server remembers them all."""

    def test_without_a_key_nothing_is_a_duplicate(self) -> None:
        """A trigger without ``dedupe_key`` takes the same delivery twice."""
        server = self.serve()
        first = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        second = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.assertNotEqual(first, second)

    def test_the_providers_key(self) -> None:
        """With the provider's own id as key the second of two is dropped; another trigger's memory is its own."""
        self.write_manifest(keyed(), keyed(trigger_id="other"))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="p1"))
        self.assert_duplicate(server.deliver("/triggers/gh", delivery="p1"))
        self.assert_accepted(server.deliver("/triggers/gh", delivery="p2"))
        self.assert_accepted(server.deliver("/triggers/other", delivery="p1"), "other")
        self.wait_handled("p1", "p2")
        self.assertEqual(len(server.records("trigger.inbox.envelopes")), 3)

    def test_an_expression(self) -> None:
        """The expression is really evaluated; objects count by their canonical JSON; null means the provider's id."""
        self.write_manifest(keyed("event.provider_payload.raw.issue"))
        server = self.serve()
        first = b'{"action": "opened", "issue": {"a": 1, "b": [2, 3]}}'
        again = b'{"issue": {"b":[2,3],   "a":1}, "action": "closed"}'
        other = b'{"action": "opened", "issue": {"a": 1, "b": [3, 2]}}'
        none = b'{"action": "opened"}'
        self.assert_accepted(server.deliver("/triggers/gh", first, delivery="d1"))
        self.assert_duplicate(server.deliver("/triggers/gh", again, delivery="d2"))
        self.assert_accepted(server.deliver("/triggers/gh", other, delivery="d3"))
        self.assert_accepted(server.deliver("/triggers/gh", none, delivery="d4"))
        self.assert_accepted(server.deliver("/triggers/gh", none, delivery="d5"))
        self.assert_duplicate(server.deliver("/triggers/gh", none, delivery="d5"))

    def test_concurrent_copies(self) -> None:
        """Of copies that arrive at once on many connections exactly one is accepted."""
        self.write_manifest(keyed())
        server = self.serve()
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: server.deliver("/triggers/gh", delivery="c1"), range(32)))
        statuses = sorted(answer.json()["status"] for answer in answers)
        self.assertEqual(statuses, ["accepted"] + ["duplicate_dropped"] * 31)
        self.wait_handled("c1")
        self.assertEqual(self.handled(), ["c1"])

    def test_what_is_ignored_claims_nothing(self) -> None:
        """A delivery that is filtered out or does not match uses up no key."""
        self.write_manifest(keyed(more="filter = 'event.provider_payload.raw.wanted'"))
        server = self.serve()
        unwanted, wanted = b'{"action": "opened", "wanted": false}', b'{"action": "opened", "wanted": true}'
        self.assertEqual(server.deliver("/triggers/gh", unwanted, delivery="w1").json()["status"], "ignored")
        other = server.deliver("/triggers/gh", wanted, delivery="w1", event="push")
        self.assertEqual(other.json()["status"], "ignored")
        self.assert_accepted(server.deliver("/triggers/gh", wanted, delivery="w1"))
        self.assert_duplicate(server.deliver("/triggers/gh", wanted, delivery="w1"))


class MemoryTests(DedupeCase):
    """What a server remembers of another."""

    def test_remembered_over_restart_kill_and_reload(self) -> None:
        """Claims outlive a reload that changes the trigger, a restart, and kill -9."""
        self.write_manifest(keyed())
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.write_handlers("two")
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.assert_duplicate(server.deliver("/triggers/gh", delivery="d1"))
        server = self.restart(server)
        self.assert_duplicate(server.deliver("/triggers/gh", delivery="d1"))
        server.kill()
        server = self.serve()
        self.assert_duplicate(server.deliver("/triggers/gh", delivery="d1"))
