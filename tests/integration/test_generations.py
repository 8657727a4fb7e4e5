"""The commands about generations against a real server: history, plans, rollbacks, probation, ramps and drains."""

from __future__ import annotations

from typing import Any

from harn.testing.server import wait_until
from tests.integration.case import ServerCase, held_trigger, trigger_text


class GenerationCase(ServerCase):
    """A server with a first generation, and files that say more."""

    def edit(self, version: str, extra: str = "") -> None:
        """Write the handlers as of another version, and the trigger with further keys."""
        self.write_handlers(version)
        self.write_manifest(trigger_text("gh", extra=extra))


class HistoryTests(GenerationCase):
    """``history``, ``show``, ``diff``."""

    def test_a_server_and_its_store_say_the_same(self) -> None:
        """Each command gives the same with a server and without, but for what is live."""
        server = self.serve()
        self.edit("two", 'timeout = "7s"')
        self.checked("reload")
        self.assertEqual(self.orchestrator("reload", "--force").status, 0)

        def ask() -> tuple[Any, Any, Any]:
            return self.checked("history"), self.checked("show", "1", "--sources"), self.checked("diff", "1")

        history, shown, diff = ask()
        self.assertEqual([(each["generation"], each["live"]) for each in history], [(3, True), (2, False), (1, False)])
        self.assertIn('VERSION = "one"', shown["modules"][0]["source"])
        self.assertEqual((diff["from"], diff["to"], diff["summary"]["modified"]), (1, 3, ["gh"]))
        self.assertEqual(diff["changes"]["gh"]["code"], [str(self.directory / "handlers.py")])
        self.assertIn("timeout", [each["key"] for each in diff["changes"]["gh"]["fields"]])
        self.assertEqual(server.terminate(), 0)
        stored, shown_stored, diff_stored = ask()
        self.assertEqual(stored, [{**each, "live": False} for each in history])
        self.assertEqual((shown_stored, diff_stored), (shown, diff))

    def test_restarts(self) -> None:
        """Who adopted what first, and when, stays over restarts; failed starts are not there; an edit is one."""
        server = self.serve()
        self.edit("two")
        self.checked("reload")
        adopted = self.checked("history")
        server.kill()
        self.edit("two", "timeout = 5")
        self.assertEqual(self.ended(self.serve(ready=False)).count("error:"), 1)
        self.edit("two")
        server = self.serve()
        self.assertEqual(self.checked("history"), adopted)
        live = server.admin("GET", "/admin/generation").json()
        self.assertEqual((live["source"], live["actor"]), (adopted[0]["source"], adopted[0]["actor"]))
        self.assertEqual((live["since"], live["generation"]), (adopted[0]["adopted_at"], 2))
        self.edit("two", 'timeout = "9s"')
        server = self.restart(server)
        newest, *others = self.checked("history")
        self.assertEqual([each["adopted_at"] for each in others], [each["adopted_at"] for each in adopted])
        self.assertEqual((newest["generation"], newest["source"], newest["actor"]), (3, "start", "start"))
        self.assertEqual((newest["summary"]["modified"], newest["summary"]["added"]), (["gh"], []))
        self.assertEqual(self.checked("show", "2")["adopted_at"], adopted[0]["adopted_at"])

    def test_unknown(self) -> None:
        """A generation that never was is an error in words, with a server and without."""
        server = self.serve()
        for _ in range(2):
            for words in (("show", "9"), ("diff", "9")):
                done = self.orchestrator(*words)
                self.assertEqual((done.status, done.stdout), (1, ""), done)
                self.assertIn("generation 9", done.stderr)
            server.terminate()


class RollbackTests(GenerationCase):
    """``plan``, ``rollback``, ``confirm``."""

    def test_plan_rollback_and_back(self) -> None:
        """A plan shows what the reload does; a rollback runs the old code and says that the files differ."""
        server = self.serve()
        self.edit("two", 'timeout = "7s"')
        plan = self.orchestrator("plan")
        self.assertEqual((plan.status, plan.stdout.splitlines()[0]), (1, "reload (dry run) via cli (+0 ~1 -0)"), plan)
        self.assertIn("-> 7s", plan.stdout)
        reloaded = self.checked("reload")
        self.assertEqual(reloaded["generation"], 2)
        self.assertEqual(self.orchestrator("plan").status, 0)
        tried = self.orchestrator("rollback", "--dry-run")
        self.assertEqual(tried.status, 1, tried)
        rolled = self.orchestrator("rollback")
        self.assertEqual(rolled.status, 0, rolled)
        self.assertIn("the files differ from the live generation (drift); a reload adopts them:", rolled.stdout)
        self.assertIn(str(self.directory / "handlers.py"), rolled.stdout)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v3")
        self.assertEqual([each["version"] for each in self.wait_handled("d1")], ["one"])
        self.assertEqual(self.checked("history")[0]["recalled"], 1)
        self.assertEqual(self.checked("reload")["generation"], 4)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"), binding="gh@v4")
        self.assertEqual([each["version"] for each in self.wait_handled("d2")], ["two"])

    def test_confirm(self) -> None:
        """A reload on probation says how to keep it; once it was kept there is nothing more to confirm."""
        self.serve()
        self.edit("two")
        done = self.orchestrator("reload", "--confirm-within", "5m")
        self.assertIn("unless: harn orchestrator confirm 2", done.stdout, done)
        self.assertEqual(self.orchestrator("confirm", "1").status, 1)
        self.assertEqual(self.orchestrator("confirm", "2").stdout, "generation 2 confirmed\n")
        again = self.orchestrator("confirm")
        self.assertEqual((again.status, again.stdout), (1, ""), again)

    def test_unconfirmed(self) -> None:
        """Without a confirmation the earlier content serves again, as a new generation, automatically."""
        server = self.serve()
        self.edit("two")
        self.checked("reload", "--confirm-within", "300ms")
        wait_until(lambda: server.generation()["generation"] >= 3, "the rollback")
        newest = self.checked("history")[0]
        self.assertEqual((newest["generation"], newest["recalled"]), (3, 1))
        self.assertIn("300ms", newest["reason"])


class RampTests(GenerationCase):
    """``ramp``."""

    def test_finish_and_abort(self) -> None:
        """A ramp is listed with its share, and ends on request."""
        server = self.serve()
        for option, version, winner in (("--finish", "two", "gh@v2"), ("--abort", "three", "gh@v2")):
            self.edit(version)
            self.assertEqual(self.orchestrator("reload", "--ramp", "25%").status, 0)
            [ramp] = self.checked("ramp")
            self.assertEqual((ramp["trigger_id"], ramp["state"], ramp["percent"]), ("gh", "running", 25.0))
            ended = self.orchestrator("ramp", option, "gh")
            self.assertEqual(ended.status, 0, ended)
            self.assert_accepted(server.deliver("/triggers/gh", delivery=version), binding=winner)
        nothing = self.orchestrator("ramp", "--finish")
        self.assertEqual((nothing.status, nothing.stdout), (1, ""), nothing)


class DrainTests(GenerationCase):
    """``drains``."""

    def test_cancel(self) -> None:
        """A version that drains is listed with its load; cancelling makes that dead letters."""
        self.write_manifest(held_trigger("gh"))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        self.edit("two")
        self.checked("reload")
        [drain] = self.checked("drains")
        self.assertEqual((drain["binding"], drain["running"], drain["generation"]), ("gh@v1", 1, 1))
        self.assertIsNotNone(drain["oldest_event"])
        wrong = self.orchestrator("drains", "--cancel", "gh@v9")
        self.assertEqual(wrong.status, 1, wrong)
        self.assertIn("gh@v1", wrong.stderr)
        self.assertEqual(
            self.orchestrator("drains", "--cancel", "gh@v1").stdout, "gh@v1: 1 cancelled, to the dead letters\n"
        )
        self.assertEqual(self.orchestrator("drains", "--watch").stdout.splitlines()[-1], "nothing drains")
        [letter] = self.wait_records(server, "trigger.dlq", 1)
        self.assertEqual(letter["payload"]["reason"], "drain_cancelled")

    def test_watch_and_move(self) -> None:
        """Deliveries that a version has not begun move at once on request; one that runs ends where it began."""
        head = "[orchestrator.pumps]\nmax_outstanding = 1\n"
        self.write_manifest(held_trigger("gh"), head=head)
        server = self.serve()
        for delivery in ("d1", "d2"):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=delivery), binding="gh@v1")
        self.wait_begun("d1")
        self.write_handlers("two")
        self.checked("reload")
        moved = self.checked("drains", "--move", "gh@v1")
        self.assertEqual((moved["binding"], moved["moved"], moved["to"]), ("gh@v1", 1, "gh@v2"))
        self.release()
        self.assertEqual(self.orchestrator("drains", "--watch").status, 0)
        handled = {each["key"]: each["binding"] for each in self.wait_handled("d1", "d2")}
        self.assertEqual(handled, {"d1": "gh@v1", "d2": "gh@v2"})
