"""After a crash: what continues by itself, and what an operator decides."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

from harn.testing.server import ServerProcess, is_alive, wait_until
from tests.integration.case import ServerCase, held_trigger, trigger_text

DEAD = "trigger.dlq"
KILLS = 10
HELD = held_trigger("gh")


class ManualTests(ServerCase):
    """``recover = "manual"``."""

    def test_recover(self) -> None:
        """What was unfinished waits for ``recover``, which lists it, refuses without ``--yes``, and hands it out."""
        head = '[orchestrator]\nrecover = "manual"\n'
        self.write_manifest(HELD, head=head)
        server = self.serve()
        event_id = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        server.kill()
        server = self.serve()
        self.release()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"))
        self.wait_handled("d2")
        self.assertEqual(self.handled(), ["d2"])
        refused = self.orchestrator("recover", "--envelope-age", "0s")
        self.assertEqual(refused.status, 1)
        self.assertIn("without --yes", refused.stderr)
        listed = self.orchestrator("recover", "--envelope-age", "0s", "--dry-run")
        self.assertEqual(listed.status, 1, listed)
        self.assertIn("stranded_envelopes=1", listed.stdout)
        self.assertIn(f"event_id={event_id}", listed.stdout)
        self.assertEqual(self.handled(), ["d2"])
        young = self.orchestrator("recover", "--envelope-age", "1h", "--dry-run")
        self.assertEqual((young.status, "stranded_envelopes=0" in young.stdout), (0, True), young)
        self.assertEqual(self.orchestrator("recover", "--envelope-age", "5", "--yes").status, 2)
        done = self.orchestrator("recover", "--envelope-age", "0s", "--yes")
        self.assertEqual(done.status, 0, done)
        self.assertIn("status=", done.stdout)
        self.wait_handled("d1")
        wait_until(
            lambda: "stranded_envelopes=0" in self.orchestrator("recover", "--envelope-age", "0s", "--dry-run").stdout,
            "nothing to be stranded",
        )
        self.assertEqual(sorted(self.handled()), ["d1", "d2"])


class AutomaticTests(ServerCase):
    """``recover = "auto"``, the default."""

    def test_queue_goes_on_in_order(self) -> None:
        """After kill -9 everything accepted and not finished is handled, and each once."""
        self.write_manifest(HELD, head="[orchestrator.pumps]\nmax_outstanding = 2\n")
        server = self.serve()
        keys = [f"d{index}" for index in range(50)]
        connection = server.connect()
        for key in keys:
            self.assert_accepted(connection.deliver("/triggers/gh", delivery=key))
        connection.close()
        self.wait_begun("d0", "d1")
        server.kill()
        self.release()
        server = self.serve()
        self.wait_handled(*keys)
        self.assertEqual(sorted(self.handled()), sorted(keys))
        wait_until(lambda: len(server.records("trigger.outbox")) == len(keys), "all outcomes")
        self.assertEqual(server.records("trigger.dlq"), [])

    def test_children_die_with_their_parent(self) -> None:
        """After kill -9 of the server no interpreter stays behind."""
        self.write_manifest(HELD)
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        children = server.children()
        self.assertTrue(children)
        server.kill()
        wait_until(lambda: not any(map(is_alive, children)), "the children to end")


class KillTests(ServerCase):
    """kill -9, ten times, under load and in the middle of reloads."""

    def test_nothing_accepted_is_lost(self) -> None:
        """Everything that was answered 200 is handled in the end; what ran at many kills may be given up, no other."""
        manifest = (
            trigger_text("gh", extra='dedupe_key = "event.dedupe_key"'),
            trigger_text("stuck", handler="handlers:held", extra='timeout = "1h"'),
        )
        self.write_manifest(*manifest)
        chance = random.Random(20_240_229)
        accepted: list[str] = []
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/stuck", delivery="stuck"), "stuck")
        self.wait_begun("stuck")
        for round_number in range(KILLS):
            # A reload, and many deliveries, are under way when the end comes.
            self.write_handlers(f"v{round_number}")
            reload_too = round_number % 2 == 1
            self.load_and_kill(server, accepted, 20 + chance.randrange(200), reload_too, round_number)
            server = self.serve()
        self.assertGreater(len(accepted), 100)
        self.wait_handled(*accepted)
        connection = server.connect()
        for key in accepted[-20:]:
            answer = connection.deliver("/triggers/gh", delivery=key)
            self.assertEqual(answer.json()["status"], "duplicate_dropped")
        connection.close()
        # It runs alone by now, behind all others, so that a kill under load may come before it has begun again.
        letters = [(each["payload"]["event"]["dedupe_key"], each["payload"]["reason"]) for each in server.records(DEAD)]
        self.assertLessEqual(set(letters), {("stuck", "recovery_limit")})
        if not letters:
            self.release()
            self.wait_handled("stuck")
        self.assertEqual(server.terminate(), 0, server.stderr)

    def load_and_kill(
        self, server: ServerProcess, accepted: list[str], enough: int, reload_too: bool, round_number: int
    ) -> None:
        """Deliver on several connections until so many are accepted, then kill the server in mid-flight."""
        count = 0
        counting = threading.Lock()

        def deliver(client: int) -> None:
            nonlocal count
            connection = server.connect(10.0)
            try:
                for number in range(100_000):
                    key = f"r{round_number}-{client}-{number}"
                    answer = connection.deliver("/triggers/gh", delivery=key)
                    if answer.status != 200:
                        raise AssertionError(answer)
                    with counting:
                        accepted.append(key)
                        count += 1
            except (OSError, HTTPException):
                return
            finally:
                connection.close()

        def reload() -> None:
            try:
                server.reload()
            except (OSError, HTTPException):
                return

        with ThreadPoolExecutor(5) as pool:
            clients = [pool.submit(deliver, client) for client in range(4)]
            if reload_too:
                wait_until(lambda: count >= enough // 2, "half of the deliveries")
                pool.submit(reload)
            wait_until(lambda: count >= enough, f"{enough} deliveries")
            server.process.kill()
        server.wait()
        for client in clients:
            client.result()
