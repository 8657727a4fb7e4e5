"""Deliveries that are in flight, queued or waiting during a reload."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, held_trigger, trigger_text

ONE_AT_A_TIME = "[orchestrator.pumps]\nmax_outstanding = 1\n"
HELD = held_trigger("gh")
OTHER = held_trigger("other")


class InFlightCase(ServerCase):
    """Servers whose handlers wait for the test."""

    def versions(self, *keys: str) -> dict[str, tuple[str, str]]:
        """Return the code version and the binding that handled each delivery, each handled once."""
        seen = self.wait_handled(*keys)
        self.assertEqual(sorted(each["key"] for each in seen), sorted(keys))
        return {each["key"]: (each["version"], each["binding"]) for each in seen}

    def modify(self, server: ServerProcess, version: str, *ids: str) -> None:
        """Reload with another version of the handlers' code."""
        self.write_handlers(version)
        self.assert_reloaded(server.reload(), modified=list(ids or ("gh",)))

    def states(self, server: ServerProcess) -> dict[str, str]:
        """Return the state of each version."""
        return {f"{each['id']}@v{each['version']}": each["state"] for each in server.bindings()}


class RunningTests(InFlightCase):
    """Handlers that run during a reload."""

    def test_running_finishes_on_its_version(self) -> None:
        """A handler that runs finishes on the old version, while new requests are handled on the new one."""
        self.write_manifest(HELD)
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.wait_begun("d1")
        self.modify(server, "two")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"), binding="gh@v2")
        self.release("d2")
        self.assertEqual(self.versions("d2"), {"d2": ("two", "gh@v2")})
        self.assertEqual(self.states(server), {"gh@v1": "draining", "gh@v2": "active"})
        self.release("d1")
        self.assertEqual(self.versions("d1"), {"d1": ("one", "gh@v1")})
        wait_until(lambda: self.states(server) == {"gh@v2": "active"}, "v1 to end")

    def test_unchanged_trigger_keeps_running(self) -> None:
        """A call of a trigger that another's edit leaves unchanged is neither ended nor run twice."""
        self.write("apart.py", "VALUE = 1\n\ndef on_event(event):\n    return None\n")
        self.write_manifest(HELD, trigger_text("apart", handler="apart:on_event"))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        self.write("apart.py", "VALUE = 2\n\ndef on_event(event):\n    return None\n")
        self.assert_reloaded(server.reload(), modified=["apart"], unchanged=["gh"])
        self.release("d1")
        self.assertEqual(self.versions("d1"), {"d1": ("one", "gh@v1")})
        self.assertEqual(self.begun(), ["d1"])

    def test_old_interpreter_goes(self) -> None:
        """When its last call has ended, the process of an old version's interpreter ends as well."""
        self.write_manifest(HELD)
        server = self.serve()
        wait_until(lambda: len(server.children()) == 2, "an interpreter and the spare one, which starts a little later")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        self.modify(server, "two")
        self.release("d1")
        self.versions("d1")
        wait_until(lambda: len(server.children()) == 2, f"2 children; there are {server.children()}")


class QueuedTests(InFlightCase):
    """Deliveries that are accepted and not begun at a reload."""

    def queue(self, server: ServerProcess, count: int = 4) -> list[str]:
        """Deliver one that runs and some that wait behind it."""
        keys = [f"q{index}" for index in range(count)]
        for key in keys:
            self.assert_accepted(server.deliver("/triggers/gh", delivery=key), binding="gh@v1")
        self.wait_begun("q0")
        self.assertEqual(self.begun(), ["q0"])
        return keys

    def test_queued_work_runs_on_its_version(self) -> None:
        """What was accepted before the reload runs on the version that accepted it; what comes after, on the new."""
        self.write_manifest(HELD, head=ONE_AT_A_TIME)
        server = self.serve()
        keys = self.queue(server)
        self.modify(server, "two")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="new"), binding="gh@v2")
        self.release()
        expected = dict.fromkeys(keys, ("one", "gh@v1")) | {"new": ("two", "gh@v2")}
        self.assertEqual(self.versions(*keys, "new"), expected)

    def test_queued_work_runs_on_its_version_after_a_crash(self) -> None:
        """The pin is durable: after kill -9 and a restart on the new code the old work still runs on the old code."""
        self.write_manifest(HELD, head=ONE_AT_A_TIME)
        server = self.serve()
        keys = self.queue(server)
        self.modify(server, "two")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="new"), binding="gh@v2")
        server.kill()
        self.release()
        server = self.serve()
        expected = dict.fromkeys(keys, ("one", "gh@v1")) | {"new": ("two", "gh@v2")}
        self.assertEqual(self.versions(*keys, "new"), expected)
        wait_until(lambda: self.states(server) == {"gh@v2": "active"}, "v1 to end")

    def test_removed_trigger_drains(self) -> None:
        """A removed trigger takes no new work, runs the deliveries that it has accepted, and then ends."""
        self.write_manifest(HELD, OTHER, head=ONE_AT_A_TIME)
        server = self.serve()
        keys = self.queue(server)
        self.write_manifest(OTHER, head=ONE_AT_A_TIME)
        report = self.assert_reloaded(server.reload(), removed=["gh"], unchanged=["other"])
        self.assertEqual([each["binding"] for each in report["draining"]], ["gh@v1"])
        self.assert_problem(server.deliver("/triggers/gh", delivery="late"), 404)
        self.assertEqual(self.states(server), {"gh@v1": "draining", "other@v1": "active"})
        self.release()
        self.assertEqual(self.versions(*keys), dict.fromkeys(keys, ("one", "gh@v1")))
        wait_until(lambda: self.states(server) == {"other@v1": "active"}, "gh to end")
        self.assertEqual(server.records("trigger.dlq"), [])

    def test_drain_timeout_moves_on(self) -> None:
        """At ``drain_timeout`` what has not begun moves to the newest version; what runs keeps running."""
        head = ONE_AT_A_TIME + '[orchestrator.reload]\ndrain_timeout = "1s"\n'
        self.write_manifest(HELD, head=head)
        server = self.serve()
        keys = self.queue(server)
        self.modify(server, "two")
        wait_until(lambda: self.queued_on(server, 1) == 0, "the queue to move")
        self.release()
        expected = dict.fromkeys(keys, ("two", "gh@v2")) | {"q0": ("one", "gh@v1")}
        self.assertEqual(self.versions(*keys), expected)

    def queued_on(self, server: ServerProcess, version: int) -> int:
        """Count the deliveries of a version beyond its running handler, by its leases."""
        [binding] = [each for each in server.bindings() if each["version"] == version]
        return int(binding["in_flight"]) - 1

    def test_drain_timeout_of_a_removed_trigger(self) -> None:
        """Of a removed trigger what has not begun by then goes to the dead letters, with reason ``binding_removed``."""
        head = ONE_AT_A_TIME + '[orchestrator.reload]\ndrain_timeout = "1s"\n'
        self.write_manifest(HELD, OTHER, head=head)
        server = self.serve()
        keys = self.queue(server)
        self.write_manifest(OTHER, head=head)
        self.assert_reloaded(server.reload(), removed=["gh"], unchanged=["other"])
        letters = self.wait_records(server, "trigger.dlq", len(keys) - 1)
        self.assertEqual({each["payload"]["reason"] for each in letters}, {"binding_removed"})
        dead = sorted(each["payload"]["event"]["dedupe_key"] for each in letters)
        self.assertEqual(dead, keys[1:])
        self.release()
        self.assertEqual(self.versions("q0"), {"q0": ("one", "gh@v1")})
        self.assertEqual(self.handled(), ["q0"])

    def test_at_most_four_generations_drain(self) -> None:
        """When a fifth would drain, what the oldest has not begun moves to the newest version."""
        self.write_manifest(HELD, head=ONE_AT_A_TIME)
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="running"))
        self.wait_begun("running")
        keys = [f"q{version}" for version in range(1, 7)]
        names = ["one", "two", "three", "four", "five", "six"]
        for version, key in enumerate(keys, 1):
            if version > 1:
                self.modify(server, names[version - 1])
            self.assert_accepted(server.deliver("/triggers/gh", delivery=key), binding=f"gh@v{version}")
        wait_until(lambda: self.queued_on(server, 1) == 0, "the oldest to be moved on")
        self.release()
        expected = {key: (names[version - 1], f"gh@v{version}") for version, key in enumerate(keys, 1)}
        expected["q1"] = ("six", "gh@v6")
        self.assertEqual(self.versions(*keys), expected)


class SettingsTests(InFlightCase):
    """Settings of the whole server."""

    def test_max_outstanding_applies_on_reload(self) -> None:
        """More handlers at once are allowed from the reload on that says so."""
        self.write_manifest(HELD, head=ONE_AT_A_TIME)
        server = self.serve()
        for key in ("a", "b", "c"):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=key))
        self.wait_begun("a")
        self.assertEqual(self.begun(), ["a"])
        self.write_manifest(HELD, head=ONE_AT_A_TIME.replace("1", "3"))
        self.assert_reloaded(server.reload(), unchanged=["gh"])
        self.wait_begun("a", "b", "c")


class WaitingTests(InFlightCase):
    """Retries that wait for their time during a reload."""

    # The first code fails until the test releases the delivery, however often its retry is due during a slow reload.
    FAILING = """
        from harn.handlers import RetryAfter

        async def failing(event, context):
            if event.dedupe_key == "held":
                return await held(event, context)
            if VERSION == "one" and not os.path.exists(os.environ["TEST_RELEASE"] + "." + event.dedupe_key):
                raise RetryAfter(1)
            return on_event(event, context)
        """
    RETRY = "[triggers.retry]\nmax = 100\n"
    PINNED = f'{RETRY}version = "pinned"'

    def let_fail(self, *keys: str, extra: str = RETRY) -> ServerProcess:
        """Start a server, deliver what is held and what fails, and reload with other code, which does not fail."""
        self.write_handlers(more=self.FAILING)
        self.write_manifest(trigger_text("gh", handler="handlers:failing", extra=extra))
        server = self.serve()
        for key in keys:
            self.assert_accepted(server.deliver("/triggers/gh", delivery=key))
        self.wait_records(server, "trigger.attempts", 1)
        self.write_handlers("two", self.FAILING)
        self.assert_reloaded(server.reload(), modified=["gh"])
        return server

    def test_retry_runs_on_the_newest(self) -> None:
        """A waiting retry holds no lease; when due it runs on the newest version, so that a fixed handler gets it."""
        server = self.let_fail("d1")
        wait_until(lambda: self.states(server) == {"gh@v2": "active"}, "v1 to end although a retry waits")
        self.assertEqual(self.versions("d1"), {"d1": ("two", "gh@v2")})

    def test_retry_runs_on_the_newest_while_the_old_drains(self) -> None:
        """It does so although its own version still drains."""
        self.let_fail("held", "d1")
        self.assertEqual(self.versions("d1"), {"d1": ("two", "gh@v2")})
        self.release()
        self.assertEqual(self.versions("held"), {"held": ("one", "gh@v1")})

    def test_pinned_retry(self) -> None:
        """With ``retry.version = "pinned"`` it runs on its own version while that is live or draining."""
        self.let_fail("held", "d1", extra=self.PINNED)
        self.release("d1")
        self.assertEqual(self.versions("d1"), {"d1": ("one", "gh@v1")})
        self.release()
        self.assertEqual(self.versions("held"), {"held": ("one", "gh@v1")})

    def test_pinned_retry_of_an_ended_version(self) -> None:
        """When its own version has ended, a pinned retry runs on the newest."""
        server = self.let_fail("d1", extra=self.PINNED)
        wait_until(lambda: self.states(server) == {"gh@v2": "active"}, "v1 to end")
        self.assertEqual(self.versions("d1"), {"d1": ("two", "gh@v2")})

    def test_retry_of_a_removed_trigger(self) -> None:
        """Waiting retries of a removed trigger keep its version draining, and run on it."""
        self.write_handlers(more=self.FAILING)
        self.write_manifest(trigger_text("gh", handler="handlers:failing", extra=self.RETRY), OTHER)
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_records(server, "trigger.attempts", 1)
        self.write_manifest(OTHER)
        self.assert_reloaded(server.reload(), removed=["gh"], unchanged=["other"])
        self.assertEqual(self.states(server), {"gh@v1": "draining", "other@v1": "active"})
        self.release("d1")
        self.assertEqual(self.versions("d1"), {"d1": ("one", "gh@v1")})
        wait_until(lambda: self.states(server) == {"other@v1": "active"}, "gh to end")


class MergingTests(InFlightCase):
    """Many requests for a reload at once."""

    def test_a_hundred_at_once(self) -> None:
        """A hundred plain requests and as many signals are merged into few reloads; every caller gets a true report."""
        server = self.serve()
        before = len(server.records("orchestrator.manifest"))
        self.write_handlers("two")

        def ask(index: int) -> tuple[int, int]:
            server.signal(signal.SIGHUP)
            answer = server.reload()
            return answer.status, answer.json()["generation"]

        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(ask, range(100)))
        self.assertEqual(set(answers), {(200, 2)})
        self.assertLess(len(server.records("orchestrator.manifest")) - before, 100)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v2")

    def test_report_is_of_a_reload_that_began_later(self) -> None:
        """Who asks while a slow reload runs gets the report of one that began after it asked."""
        server = self.serve()
        self.write_handlers("two", "note(imports=VERSION)\ntime.sleep(1.0)\n")
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(server.reload)
            wait_until(lambda: any("imports" in each for each in self.seen()), "the slow reload to be under way")
            self.write_handlers("three")
            second = server.reload().json()
            self.assertGreater(second["generation"], first.result().json()["generation"])
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        [seen] = self.wait_handled("d1")
        self.assertEqual(seen["version"], "three")

    def test_requests_during_reloads(self) -> None:
        """Deliveries on kept-alive connections continue without an error while forced reloads follow one another."""
        server = self.serve()
        with ThreadPoolExecutor(1) as pool:
            reloads = pool.submit(lambda: [server.reload("?force=true").status for _ in range(10)])
            connection = server.connect()
            count = 0
            while not reloads.done() or count < 50:
                self.assert_accepted(connection.deliver("/triggers/gh", delivery=f"d{count}"), binding="gh@v1")
                count += 1
            connection.close()
        self.assertEqual(set(reloads.result()), {200})
        self.wait_handled(*(f"d{index}" for index in range(count)))
        self.assertEqual(len(self.handled()), count)
