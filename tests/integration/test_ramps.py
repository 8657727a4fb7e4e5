"""Ramps on real servers: the share of each version over time, and the effects of failures, restarts and reloads."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harn.testing.server import Connection, ServerProcess, wait_until
from tests.integration.case import ServerCase, held_trigger, trigger_text
from tests.integration.test_upgrade import UpgradeCase

FAILING = """
def on_event(event, context):
    raise ValueError("not with me")
"""
HELD = held_trigger("gh")


class RampCase(ServerCase):
    """A server with a trigger on a ramp."""

    def ramp(self, server: ServerProcess, version: str, query: str = "?ramp=10%25", more: str = "") -> dict[str, Any]:
        """Reload with another version of the code; give the ramp that this begins."""
        self.write_handlers(version, more)
        report = server.reload(query).json()
        self.assertEqual((report["status"], report["warnings"]), ("ok", []), report)
        [ramp] = report["ramps"]
        found: dict[str, Any] = ramp
        return found

    def ramps(self, server: ServerProcess) -> list[dict[str, Any]]:
        """Return the ramps."""
        found: list[dict[str, Any]] = server.admin("GET", "/admin/ramps").json()["ramps"]
        return found

    def post(self, server: ServerProcess, keys: Iterable[str], clients: int = 1) -> dict[str, str]:
        """Deliver; give the version that took each."""

        def deliver(some: list[str]) -> dict[str, str]:
            connection = server.connect()
            try:
                answers = {key: connection.deliver("/triggers/gh", delivery=key) for key in some}
            finally:
                connection.close()
            for answer in answers.values():
                self.assert_accepted(answer)
            return {key: answer.json()["binding"] for key, answer in answers.items()}

        listed = list(keys)
        with ThreadPoolExecutor(clients) as pool:
            parts = pool.map(deliver, [listed[index::clients] for index in range(clients)])
        return {key: binding for part in parts for key, binding in part.items()}

    def shares(self, server: ServerProcess) -> dict[str, float]:
        """Return the percentage that each version takes, as the bindings tell."""
        return {each["binding"]: each["share"] for each in server.bindings()}

    def metrics(self, server: ServerProcess, name: str) -> dict[str, float]:
        """Return a metric's values by labels."""
        lines = server.request("GET", "/metrics").body.decode().splitlines()
        found = (line.removeprefix(name).rpartition(" ") for line in lines if line.startswith(name + "{"))
        return {labels: float(value) for labels, _, value in found}

    def kinds(self, server: ServerProcess) -> list[str]:
        """Return the kinds of records about ramps, in order."""
        records = server.records("orchestrator.manifest")
        return [each["kind"] for each in records if each["kind"].startswith("ramp_")]


class ShareTests(RampCase):
    """What each version takes, and where that is seen."""

    def test_share(self) -> None:
        """Of 2,000 events the new version takes 10 %; one key goes one way; both are seen wherever one looks."""
        server = self.serve()
        ramp = self.ramp(server, "two")
        self.assertEqual((ramp["stable"], ramp["fresh"], ramp["percent"]), ("gh@v1", "gh@v2", 10.0))
        keys = [f"d{index}" for index in range(2000)]
        taken = self.post(server, keys, clients=4)
        counts = Counter(taken.values())
        self.assertEqual(set(counts), {"gh@v1", "gh@v2"})
        self.assertTrue(140 <= counts["gh@v2"] <= 260, counts)
        some = keys[:300]
        self.assertEqual(self.post(server, some), {key: taken[key] for key in some})
        seen = self.wait_handled(*keys)
        self.assertEqual({each["key"]: each["binding"] for each in seen}, taken)
        self.assertEqual({(each["version"], each["binding"]) for each in seen}, {("one", "gh@v1"), ("two", "gh@v2")})
        again = Counter(taken[key] for key in some)
        counts += again
        wait_until(lambda: self.metrics(server, "harn_trigger_inflight") == {'{trigger_id="gh"}': 0.0}, "all to end")
        self.assertEqual(self.shares(server), {"gh@v1": 90.0, "gh@v2": 10.0})
        dispatched = {each["binding"]: each["dispatched"] for each in server.bindings()}
        self.assertEqual(dispatched, dict(counts))
        shares = {'{binding_key="gh@v1"}': 0.9, '{binding_key="gh@v2"}': 0.1}
        self.assertEqual(self.metrics(server, "harn_binding_share"), shares)
        attempts = self.metrics(server, "harn_binding_attempts")
        self.assertEqual(attempts['{binding_key="gh@v2",outcome="succeeded"}'], counts["gh@v2"])
        self.assertEqual(attempts['{binding_key="gh@v2",outcome="failed"}'], 0)
        inspected = {f"gh@v{each['version']}": each for each in self.checked("inspect")["triggers"]}
        for binding, share in (("gh@v1", 90.0), ("gh@v2", 10.0)):
            self.assertEqual((inspected[binding]["share"], inspected[binding]["dispatched"]), (share, counts[binding]))
        self.assertEqual(len(server.state()["triggers"]), 2)
        [told] = self.ramps(server)
        self.assertEqual((told["attempts"], told["failures"], told["state"]), (counts["gh@v2"], 0, "running"))
        self.assertEqual(server.admin("POST", "/admin/ramps/finish").status, 200)
        self.assertEqual(set(self.post(server, [f"e{index}" for index in range(50)]).values()), {"gh@v2"})
        wait_until(lambda: self.shares(server) == {"gh@v2": 100.0}, "v1 to end")
        self.assertEqual(self.metrics(server, "harn_binding_share"), {})
        self.assertEqual(self.ramps(server), [])

    def test_other_reloads_meanwhile(self) -> None:
        """A ramp stays, keys and all, when others change; the trigger's next change goes out from the stable one."""
        self.write("apart.py", "def on_event(event):\n    return None\n")
        self.write_manifest(trigger_text("gh"))
        server = self.serve()
        self.ramp(server, "two", "?ramp=40%25")
        keys = [f"d{index}" for index in range(60)]
        taken = self.post(server, keys)
        self.assertEqual(set(taken.values()), {"gh@v1", "gh@v2"})
        self.write_manifest(trigger_text("gh"), trigger_text("more", handler="apart:on_event"))
        self.assert_reloaded(server.reload(), added=["more"], unchanged=["gh"])
        self.assertEqual(self.post(server, keys), taken)
        self.assert_reloaded(server.reload("?force=true"), unchanged=["gh", "more"])
        self.assertEqual(self.post(server, keys), taken)
        self.assertEqual(self.ramp(server, "three", "?ramp=40%25")["stable"], "gh@v1")
        self.assertEqual(self.post(server, keys), {key: b.replace("v2", "v3") for key, b in taken.items()})
        # A path is known before the key is: a change of it cannot be shared.
        moved = trigger_text("gh", extra='path = "/elsewhere"')
        self.write_manifest(moved, trigger_text("more", handler="apart:on_event"))
        report = server.reload("?ramp=40%25").json()
        self.assertIn("gh is not ramped, its new version takes all deliveries: its path changed", report["warnings"])
        answer = server.deliver("/elsewhere", delivery="last")
        self.assert_accepted(answer, binding="gh@v4")
        self.assertEqual(self.ramps(server), [])
        # A trigger that is removed takes its ramp with it.
        self.write_manifest(trigger_text("more", handler="apart:on_event"))
        self.assert_reloaded(server.reload(), removed=["gh"], unchanged=["more"])
        self.assert_problem(server.deliver("/elsewhere", delivery="late"), 404)

    def test_orders_without_a_ramp(self) -> None:
        """What is to be finished or aborted and is not there is refused in words."""
        server = self.serve()
        for action in ("finish", "abort"):
            self.assert_problem(server.admin("POST", f"/admin/ramps/{action}"), 409)
            problem = self.assert_problem(server.admin("POST", f"/admin/ramps/{action}", {"trigger": "x"}), 409)
            self.assertIn("'x'", problem["detail"])
        self.assert_problem(server.admin("POST", "/admin/ramps/finish", {"trigger": 3}), 400)
        self.assert_problem(server.request("POST", "/admin/ramps/finish"), 401)


class CourseTests(RampCase):
    """How a ramp ends by itself."""

    def test_steps(self) -> None:
        """By its ``rollout`` the share rises step by step until the new version has everything."""
        self.write_manifest(trigger_text("gh", extra='rollout = { percent = 20, step = 40, every = "1s" }'))
        server = self.serve()
        ramp = self.ramp(server, "two", "")
        self.assertEqual((ramp["percent"], ramp["step"], ramp["every"]), (20.0, 40.0, "1s"))
        keys = [f"d{index}" for index in range(40)]
        before = {key for key, binding in self.post(server, keys).items() if binding == "gh@v2"}
        while self.ramps(server):
            taken = self.post(server, keys)
            now = {key for key, binding in taken.items() if binding == "gh@v2"}
            self.assertLessEqual(before, now)  # whoever has gone over to the new version stays there
            before = now
        self.assertEqual(set(self.post(server, keys).values()), {"gh@v2"})
        wait_until(lambda: "ramp_finished" in self.kinds(server), "the record of its end")
        self.assertEqual(self.kinds(server), ["ramp_stepped", "ramp_finished"])

    def test_failures(self) -> None:
        """When too much fails all goes back to the old version, what failed too; an edit alone tries again."""
        # With one attempt each failure is a dead letter at once, which must be redriven.
        extra = 'rollout = { percent = 50, max_failures = "10%" }\n[triggers.retry]\nmax = 1'
        trigger = trigger_text("gh", extra=extra)
        self.write_manifest(trigger)
        server = self.serve()
        self.ramp(server, "two", "", FAILING)
        keys = [f"d{index}" for index in range(40)]
        taken = self.post(server, keys)
        self.assertIn("gh@v2", taken.values())
        wait_until(lambda: "ramp_aborted" in self.kinds(server), "the ramp to be aborted")
        seen = self.wait_handled(*keys)
        self.assertEqual({each["version"] for each in seen}, {"one"})
        self.assertEqual(sorted(each["key"] for each in seen), sorted(keys))
        wait_until(lambda: not server.records("trigger.dlq"), "the dead letters to be taken back")
        [told] = self.ramps(server)
        self.assertEqual(told["state"], "aborted")
        self.assertRegex(told["why"], r"\d+ of \d+ attempts failed, more than 10%")
        # Neither another reload nor a restart tries the same once more.
        self.write_manifest(trigger, trigger_text("more"))
        self.assert_reloaded(server.reload(), added=["more"], unchanged=["gh"])
        self.assertEqual(set(self.post(server, keys).values()), {"gh@v1"})
        server = self.restart(server)
        self.assertEqual(set(self.post(server, keys).values()), {"gh@v1"})
        self.assertEqual(server.records("trigger.dlq"), [])
        self.assertEqual(self.ramp(server, "three", "")["fresh"], "gh@v3")
        self.assertEqual(set(self.post(server, keys).values()), {"gh@v1", "gh@v3"})

    def test_abort_with_work_in_hand(self) -> None:
        """Deliveries that run on an aborted version end on it; those that it had not begun run on the previous one."""
        head = "[orchestrator.pumps]\nmax_outstanding = 1\n"
        self.write_manifest(HELD, head=head)
        server = self.serve()
        self.ramp(server, "two", "?ramp=99%25")
        taken = self.post(server, [f"d{index}" for index in range(6)])
        self.assertEqual(taken["d0"], "gh@v2")
        self.wait_begun("d0")
        aborted = server.admin("POST", "/admin/ramps/abort", {"trigger": "gh"})
        self.assertEqual(aborted.json()["ramps"][0]["state"], "aborted", aborted)
        self.assertEqual(self.post(server, ["new"]), {"new": "gh@v1"})
        self.release()
        seen = {each["key"]: each["version"] for each in self.wait_handled(*taken, "new")}
        expected = {**dict.fromkeys(taken, "one"), "d0": "two", "new": "one"}
        self.assertEqual(seen, expected)
        wait_until(lambda: self.shares(server) == {"gh@v1": 100.0}, "v2 to end")


class RestartTests(RampCase):
    """Servers that end during a ramp."""

    def test_killed(self) -> None:
        """After kill -9 it continues: the same share and keys; what each had queued is handled by its own code."""
        self.write_manifest(HELD, head="[orchestrator.pumps]\nmax_outstanding = 1\n")
        server = self.serve()
        ramp = self.ramp(server, "two", "?ramp=30%25")
        keys = [f"d{index}" for index in range(40)]
        taken = self.post(server, keys)
        self.assertEqual(set(taken.values()), {"gh@v1", "gh@v2"})
        self.wait_begun("d0")
        server.kill()
        server = self.serve()
        self.assertEqual(server.generation()["generation"], 2)
        self.assertEqual(self.shares(server), {"gh@v1": 70.0, "gh@v2": 30.0})
        [told] = self.ramps(server)
        self.assertEqual((told["state"], told["began_at"]), ("running", ramp["began_at"]))
        self.release()
        code = {"gh@v1": "one", "gh@v2": "two"}
        seen = {each["key"]: (each["version"], each["binding"]) for each in self.wait_handled(*keys)}
        self.assertEqual(seen, {key: (code[binding], binding) for key, binding in taken.items()})
        self.assertEqual(self.post(server, keys), taken)
        finished = self.checked("ramp", "--finish", "gh")
        self.assertEqual([each["state"] for each in finished], ["finished"])
        server = self.restart(server)
        self.assertEqual(set(self.post(server, keys).values()), {"gh@v2"})
        self.assertEqual(self.ramps(server), [])

    def test_steps_go_on(self) -> None:
        """A step that fell due while no server ran is made by the next one, and those after it in their time."""
        self.write_manifest(trigger_text("gh", extra='rollout = { percent = 20, step = 30, every = "1500ms" }'))
        server = self.serve()
        self.ramp(server, "two", "")
        server.kill()
        server = self.serve()
        wait_until(lambda: self.shares(server) == {"gh@v2": 100.0}, "the ramp to end")
        wait_until(lambda: self.kinds(server)[-1:] == ["ramp_finished"], "the record of its end")
        self.assertEqual(set(self.post(server, [f"d{index}" for index in range(20)]).values()), {"gh@v2"})


class UpgradeTests(RampCase, UpgradeCase):
    """An upgrade of the program during a ramp."""

    def test_upgrade(self) -> None:
        """The new program continues with it: share, keys and both codes; so does what the old one still answers."""
        server = self.serve()
        self.ramp(server, "two", "?ramp=30%25")
        keys = [f"d{index}" for index in range(60)]
        taken = self.post(server, keys)
        self.assertEqual(set(taken.values()), {"gh@v1", "gh@v2"})
        kept: dict[str, Connection] = {key: server.connect() for key in keys[:12]}
        for connection in kept.values():
            self.addCleanup(connection.close)
            self.assertEqual(connection.request("GET", "/health").status, 200)
        new = self.upgrade(server, server.pid)
        for key, connection in kept.items():
            self.assert_accepted(connection.deliver("/triggers/gh", delivery=key), binding=taken[key])
        self.assertEqual(self.old_status(server), 0)
        self.assertEqual(self.post(server, keys), taken)
        self.assertEqual(self.shares(server), {"gh@v1": 70.0, "gh@v2": 30.0})
        wait_until(lambda: len(self.handled()) == 2 * len(keys) + len(kept), "all to be handled")
        self.assertEqual({(each["key"], each["binding"]) for each in self.seen()}, set(taken.items()))
        self.assertEqual(server.admin("POST", "/admin/ramps/abort").status, 200)
        self.assertEqual(set(self.post(server, keys).values()), {"gh@v1"})
        os.kill(new, signal.SIGTERM)
        self.wait_ended(new)
