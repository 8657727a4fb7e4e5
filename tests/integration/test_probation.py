"""Probation on real servers: a change that is not confirmed, or fails too often, is undone without a loss."""

from __future__ import annotations

import signal
from typing import Any

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, trigger_text
from tests.integration.test_watch import WatchCase

FAILING = """
def failing(event, context):
    # Half of the events fail, at every attempt.
    if int(event.dedupe_key.rpartition("-")[2]) % 2:
        raise ValueError("not with me")
    return on_event(event, context)
"""
REJECTING = """
from harn.handlers import Reject


def failing(event, context):
    if event.dedupe_key != "last":
        raise Reject("unwanted")
    return on_event(event, context)
"""
MENDED = "\n\nfailing = on_event\n"
UNDER_FAILING = trigger_text("gh", handler="handlers:failing")


class ProbationCase(ServerCase):
    """A server whose new generations are tried."""

    def reload(self, server: ServerProcess, query: str = "", *, generation: int) -> dict[str, Any]:
        """Reload; see that this generation serves now, and give its probation."""
        report = server.reload(query).json()
        self.assertEqual((report["status"], report["generation"]), ("ok", generation), report)
        found: dict[str, Any] = report["probation"]
        return found

    def records(self, server: ServerProcess, kind: str) -> list[dict[str, Any]]:
        """Return the payloads of a kind of record about generations."""
        return [each["payload"] for each in server.records("orchestrator.manifest") if each["kind"] == kind]

    def outcomes(self, server: ServerProcess) -> list[tuple[int, str]]:
        """Return how probations have ended: generation and outcome."""
        return [(each["generation"], each["outcome"]) for each in self.records(server, "probation_ended")]

    def wait_outcome(self, server: ServerProcess, generation: int, outcome: str) -> None:
        """Wait until the probation of a generation has ended so."""
        wait_until(lambda: (generation, outcome) in self.outcomes(server), f"{generation} {outcome}")

    def assert_version(self, server: ServerProcess, key: str, version: str) -> None:
        """See which code handles a delivery."""
        self.assert_accepted(server.deliver("/triggers/gh", delivery=key))
        [seen] = self.wait_handled(key)
        self.assertEqual(seen["version"], version)


class ConfirmTests(ProbationCase):
    """``confirm_within``."""

    def test_history(self) -> None:
        """The history marks what is on probation, until it is confirmed, and what was undone."""
        server = self.serve()
        self.write_handlers("two")
        probation = self.reload(server, "?confirm_within=10m", generation=2)

        def notes() -> list[str]:
            lines = self.orchestrator("history").stdout.splitlines()[1:]
            return [line.partition(" note=")[2] for line in lines]

        self.assertEqual(notes(), [f"on probation until {probation['confirm_by']}", ""])
        self.assertEqual(self.orchestrator("confirm", "2", "--config", "harn.toml").status, 0)
        self.assertEqual(notes(), ["", ""])
        self.write_handlers("six")
        self.reload(server, "?confirm_within=100ms", generation=3)
        self.wait_generation(server, 4)
        self.assertEqual(self.orchestrator("rollback", "1").status, 0)
        expected = ["", "rolled back by generation 5", "reverted by generation 4", "", ""]
        self.assertEqual(notes(), expected)
        other = self.orchestrator("confirm", "--config", "other.toml")
        self.assertEqual((other.status, other.stdout), (1, ""))
        self.assertIn("harn.toml, not other.toml, which does not exist", other.stderr)
        self.assertEqual(server.terminate(), 0)
        self.assertEqual(notes(), expected)

    def test_manifest(self) -> None:
        """With ``confirm_within`` in the manifest each kind of reload is undone unless it is confirmed."""
        head = '[orchestrator.reload]\nconfirm_within = "700ms"\n'
        self.write_manifest(head=head)
        server = self.serve()
        self.assertIsNone(server.generation()["probation"])  # what a server starts with is on none
        self.write_handlers("two")
        server.signal(signal.SIGHUP)
        self.wait_generation(server, 3)
        self.wait_last_reload(server, lambda last: last["source"] == "revert" and last["status"] == "ok")
        self.assert_version(server, "d1", "one")
        self.assertEqual(server.state()["generation"], 3)
        live = server.generation()
        self.assertEqual((live["recalled"], live["drift"], live["source"]), (1, True, "revert"))
        self.assertIn("it was not confirmed within 700ms", live["reason"])
        self.write_manifest(head=head.replace("700ms", "10m"))  # enough for what follows, on any machine
        probation = self.reload(server, generation=4)
        self.assertEqual((probation["generation"], probation["fallback"]), (4, 3))
        self.assertEqual(server.generation()["probation"]["confirm_by"], probation["confirm_by"])
        # A rollback is on none: it ends one.
        self.assertEqual(server.admin("POST", "/admin/rollback", {"generation": 1}).json()["generation"], 5)
        self.assertIsNone(server.generation()["probation"])
        self.wait_outcome(server, 4, "superseded")
        self.reload(server, generation=6)
        self.assertEqual(server.admin("POST", "/admin/confirm").json(), {"generation": 6, "status": "confirmed"})
        self.assertIsNone(server.generation()["probation"])
        self.assert_problem(server.admin("POST", "/admin/confirm"), 409)
        self.assert_version(server, "d2", "two")
        self.wait_outcome(server, 6, "confirmed")
        self.assertEqual(self.outcomes(server), [(2, "reverted"), (4, "superseded"), (6, "confirmed")])

    def test_two_in_a_row(self) -> None:
        """A change on top of an unconfirmed one falls back to the last good generation, not to that one."""
        server = self.serve()
        self.write_handlers("two")
        self.reload(server, "?confirm_within=5m", generation=2)
        self.write_handlers("three")
        self.assertEqual(self.reload(server, "?confirm_within=300ms", generation=3)["fallback"], 1)
        self.wait_generation(server, 4)
        self.assert_version(server, "d1", "one")
        self.assertEqual(server.generation()["recalled"], 1)

    def test_nothing_to_try(self) -> None:
        """A reload that changes nothing begins no probation, and says so; an invalid time is refused."""
        server = self.serve()
        report = self.assert_reloaded(server.reload("?confirm_within=1s"), unchanged=["gh"])
        self.assertIn("no probation and no ramp begins", " ".join(report["warnings"]))
        self.assertIsNone(server.generation()["probation"])
        for query in ("confirm_within=0s", "confirm_within=soon", "min=5", "revert_on_failures=100%25"):
            self.assert_problem(server.reload(f"?{query}"), 400)

    def test_killed_and_lapsed(self) -> None:
        """After kill -9 the next server continues with the probation, and undoes the generation when its time is up."""
        server = self.serve()
        self.write_handlers("two")
        before = self.reload(server, "?confirm_within=4s", generation=2)
        server.kill()
        server = self.serve()
        self.wait_generation(server, 3)
        self.assert_version(server, "d1", "one")
        newest = server.admin("GET", "/admin/generations").json()["generations"][0]
        self.assertEqual((newest["source"], newest["recalled"]), ("revert", 1))
        self.assertEqual(self.outcomes(server), [(2, "reverted")])
        self.assertEqual(self.records(server, "probation_ended")[0]["confirm_by"], before["confirm_by"])

    def test_killed_and_confirmed(self) -> None:
        """In the next server it is confirmed as in the previous one, and no later one asks again."""
        server = self.serve()
        self.write_handlers("two")
        before = self.reload(server, "?confirm_within=5m", generation=2)
        server.kill()
        server = self.serve()
        self.assertEqual(server.generation()["probation"]["confirm_by"], before["confirm_by"])
        self.assertEqual(self.checked("confirm"), {"generation": 2, "status": "confirmed"})
        server = self.restart(server)
        self.assertIsNone(server.generation()["probation"])
        self.assert_version(server, "d1", "two")


class FailureTests(ProbationCase):
    """``revert_on_failures``."""

    def begin(self, head: str = "") -> ServerProcess:
        """Start a server whose code is good."""
        self.write_handlers(more=MENDED)
        self.write_manifest(UNDER_FAILING, head=head)
        return self.serve()

    def spoil(self, server: ServerProcess, prefix: str, *, good: int) -> list[str]:
        """Deliver until the bad generation is undone, and a little longer; give the keys of what was accepted."""
        keys: list[str] = []
        bindings: set[str] = set()
        connection = server.connect()
        after = 0
        while after < 5:
            keys.append(f"{prefix}-{len(keys)}")
            answer = connection.deliver("/triggers/gh", delivery=keys[-1])
            self.assert_accepted(answer)
            bindings.add(answer.json()["binding"])
            after += int(answer.headers["harn-generation"]) >= good
            self.assertLess(len(keys), 3000, "the bad generation is not undone")
        connection.close()
        self.assertEqual(len(bindings), 2)
        return keys

    def assert_none_lost(self, server: ServerProcess, keys: list[str]) -> None:
        """See that each was handled in the end, once, and that none is a dead letter."""
        seen = self.wait_handled(*keys)
        wait_until(lambda: not server.records("trigger.dlq"), "the dead letters to be taken back")
        self.assertEqual(sorted(each["key"] for each in seen), sorted(keys))
        self.assertTrue(any(each["version"] == "two" for each in seen))  # what the bad code could do is done
        # What the bad code could not do was done by the good one.
        odd = {each["version"] for each in seen if int(each["key"].rpartition("-")[2]) % 2}
        self.assertEqual(odd, {"one"})

    def test_undone(self) -> None:
        """By the manifest, then by the reload's options: all that the bad code accepted is handled; no dead letters."""
        head = '[orchestrator.reload]\nrevert_on_failures = "20%"\nrevert_min = 10\n'
        server = self.begin(head)
        self.write_handlers("two", FAILING)
        done = self.orchestrator("reload")
        self.assertIn("rolled back when more than 20% of at least 10 attempts", done.stdout, done)
        keys = self.spoil(server, "a", good=3)
        self.assert_none_lost(server, keys)
        self.assertRegex(server.generation()["reason"], r"\d+ of \d+ attempts of the new versions failed")
        self.write_handlers("two", FAILING + "\n# better, they say\n")
        probation = self.reload(server, "?revert_on_failures=30%25&min=12&for=2m", generation=4)
        self.assertEqual((probation["revert_on_failures"], probation["min"]), ("30%", 12))
        self.assert_none_lost(server, [*keys, *self.spoil(server, "b", good=5)])
        self.wait_outcome(server, 4, "reverted")
        self.assertEqual(self.outcomes(server), [(2, "reverted"), (4, "reverted")])

    def test_confirmed(self) -> None:
        """What was confirmed fails as it likes: its dead letters are its own."""
        server = self.begin()
        self.write_handlers("two", FAILING)
        self.reload(server, "?revert_on_failures=20%25&min=1", generation=2)
        self.assertEqual(server.admin("POST", "/admin/confirm", {"generation": 2}).status, 200)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="a-1"), binding="gh@v2")
        [letter] = self.wait_records(server, "trigger.dlq", 1)
        self.assertEqual((letter["payload"]["reason"], letter["payload"]["binding_key"]), ("retry_exhausted", "gh@v2"))
        self.assertEqual(server.generation()["generation"], 2)

    def test_what_a_handler_asks_for(self) -> None:
        """``Reject`` and ``RetryAfter`` are a handler's own words, and undo nothing."""
        self.write_handlers(more=MENDED)
        self.write_manifest(UNDER_FAILING)
        server = self.serve()
        self.write_handlers("two", REJECTING)
        self.reload(server, "?revert_on_failures=0%25&min=1", generation=2)
        for index in range(5):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=f"a-{index}"), binding="gh@v2")
        self.wait_records(server, "trigger.dlq", 5)
        self.assert_version(server, "last", "two")
        wait_until(lambda: server.generation()["probation"]["attempts"] == 6, "the last attempt to be counted")
        self.assertEqual(server.generation()["probation"]["failures"], 0)

    def test_killed(self) -> None:
        """After kill -9 among the failures the next server undoes it, and all that was accepted is handled."""
        server = self.begin()
        self.write_handlers("two", FAILING)
        self.reload(server, "?revert_on_failures=20%25&min=40", generation=2)
        first = [f"a-{index}" for index in range(4)]
        for key in first:
            self.assert_accepted(server.deliver("/triggers/gh", delivery=key), binding="gh@v2")
        self.wait_records(server, "trigger.outbox", 2 + 2 * 7)
        server.kill()
        server = self.serve()
        self.assertEqual(server.generation()["generation"], 2)
        self.assert_none_lost(server, [*first, *self.spoil(server, "b", good=3)])


class WatchTests(ProbationCase, WatchCase):
    """Probation of what ``--watch`` adopts."""

    def test_watch(self) -> None:
        """A change without confirmation is undone, and not adopted until its bytes change; confirmed, it stays."""
        head = '[orchestrator.reload]\nconfirm_within = "1s"\n'
        self.write_manifest(head=head)
        server = self.serve("--watch")
        self.write_handlers("two")
        self.wait_generation(server, 3)
        self.write_handlers("two")
        (self.directory / "handlers.py").touch()
        ProbationCase.assert_version(self, server, "d1", "one")
        self.write_manifest(head=head.replace("1s", "10m"))  # enough for what follows, on any machine
        self.wait_generation(server, 4)
        self.write_handlers("six")
        self.wait_generation(server, 5)
        self.assertEqual(server.admin("POST", "/admin/confirm", {"generation": 5}).status, 200)
        ProbationCase.assert_version(self, server, "d2", "six")
        good = ("file_watch", "succeeded")
        found = [(source, kind.removeprefix("reload_")) for source, kind in self.adopted(server)]
        self.assertEqual(found, [good, ("revert", "succeeded"), good, good])

    def adopted(self, server: ServerProcess) -> list[tuple[str, str]]:
        """Return source and kind of the reloads so far, without the records of probations."""
        records = server.records("orchestrator.manifest")
        told = [each for each in records if each["kind"].startswith("reload_")]
        return [(each["payload"]["source"], each["kind"]) for each in told]
