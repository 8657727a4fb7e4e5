"""A backup under traffic, restored elsewhere: nothing that was accepted before its moment is missing."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable

from harn.testing.manifests import trigger_text
from harn.testing.server import Connection
from tests.integration.case import ServerCase, held_trigger

FAILING = """
def fails(event):
    raise ValueError("not today")
"""


class BackupTests(ServerCase):
    def test_restored_elsewhere(self) -> None:
        """
        What ran, was queued, waited or was dead at the backup is so after the restore, and continues; numbers continue.
        """
        self.write_handlers(more=FAILING)
        self.write_manifest(
            trigger_text("gh"),
            held_trigger("slow"),
            trigger_text("bad", handler="handlers:fails", extra='retry = { max = 3, schedule = ["1h"] }'),
        )
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/slow", delivery="runs"), "slow")
        self.assert_accepted(server.deliver("/triggers/bad", delivery="waits"), "bad")
        self.wait_begun("runs")
        self.wait_records(server, "trigger.attempts", 1)
        accepted, stop = self.traffic(server.url)
        before = list(accepted)
        made = self.checked("backup", "copy.harn")
        stop()
        self.assertGreater(len(accepted), len(before))
        file = self.directory / "copy.harn"
        self.assertEqual((made["file"], made["generation"], made["bytes"]), (str(file), 1, file.stat().st_size))
        [record] = server.records("audit.operations")
        self.assertEqual((record["kind"], record["payload"]["outcome"]), ("backup", "done"))
        self.assertEqual(self.checked("check", "--store")["status"], "ok")
        again = self.orchestrator("backup", "copy.harn")
        self.assertEqual((again.status, "--force" in again.stderr), (1, True), again)
        refused = self.orchestrator("restore", "copy.harn")
        self.assertEqual((refused.status, "not empty" in refused.stderr), (1, True), refused)
        for words, status in ((["new"], 1), (["state"], 2), (["new", "--json"], 1)):
            tried = self.harn("orchestrator", "restore", "copy.harn", "--dry-run", "--state-dir", *words)
            self.assertEqual(tried.status, status, tried)
        self.assertEqual(self.harn("orchestrator", "restore", "harn.toml", "--dry-run").status, 2)
        server.kill()
        self.assertEqual(self.checked("backup", "stopped.harn")["deliveries"]["ready"], 1)
        told = json.loads(self.harn("orchestrator", "restore", "copy.harn", "--state-dir", "new", "--json").stdout)
        self.assertEqual((told["backup"]["deliveries"]["waiting"], told["refused"]), (1, None))
        self.assertEqual(sorted(os.listdir(self.directory / "new")), ["digest.key", "events.sqlite", "lock"])

        os.unlink(self.seen_path)
        (self.directory / "state").rename(self.directory / "state.before")
        (self.directory / "new").rename(self.directory / "state")
        self.release()
        server = self.serve()
        self.wait_handled("runs")
        known = {each["payload"]["event"]["dedupe_key"] for each in server.records("trigger.inbox.envelopes")}
        self.assertLessEqual({*before, "runs", "waits"}, known)
        waiting = {each["id"]: each["waiting_retries"] for each in server.bindings()}
        self.assertEqual((waiting["bad"], server.state()["generation"]), (1, 1))
        self.assert_accepted(server.deliver("/triggers/gh", delivery="after"), binding="gh@v1")
        self.wait_handled("after")

    def traffic(self, url: str) -> tuple[list[str], Callable[[], None]]:
        """Deliver one after the other; give the list of what was accepted, and what ends it."""
        accepted: list[str] = []
        begun, is_over = threading.Event(), threading.Event()

        def deliver() -> None:
            connection = Connection(url)
            for number in range(1_000_000):
                if is_over.is_set():
                    break
                answer = connection.deliver("/triggers/gh", delivery=f"traffic-{number}")
                assert answer.status == 200, answer
                accepted.append(f"traffic-{number}")
                if number == 20:
                    begun.set()
            connection.close()

        thread = threading.Thread(target=deliver)
        thread.start()
        self.assertTrue(begun.wait(60))

        def stop() -> None:
            is_over.set()
            thread.join()

        self.addCleanup(stop)
        return accepted, stop
