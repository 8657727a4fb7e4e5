"""Publication of reloads: records and the state file, also where they cannot be written."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from msgspec import to_builtins
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.observability.metrics import Metrics
from harn.orchestrator.publish import MANIFEST, PATIENCE, Publisher, record_of
from harn.orchestrator.state_directory import StateFile
from harn.reload.report import Finished, ReloadReport
from harn.server import RecordWriter
from harn.testing.clocks import NoThreads
from harn.testing.stores.pumped import PumpedStore
from tests.reload.fakes import START


class PublisherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.store = PumpedStore(self.clock)
        self.store.open()
        self.path = os.path.join(self.mktemp(), "state.json")
        os.mkdir(os.path.dirname(self.path))
        self.threads: Any = NoThreads()
        status: Any = SimpleNamespace(snapshot=lambda: SimpleNamespace(encode=lambda: b"{}"))
        state_file = StateFile(self.path, self.clock, self.threads, status)
        self.publisher = Publisher(self.clock, RecordWriter(self.clock, self.store.event_log), state_file, Metrics())

    def report(self, **more: Any) -> Finished:
        values: dict[str, Any] = {"status": "ok", "source": "cli", "actor": "me", "generation": 2, "digest": "sha256:x"}
        return Finished(ReloadReport(**{**values, **more}), {"parse": 0.5}, merged=3)

    def published(self, finished: Finished) -> tuple[list[str], list[str]]:
        """Publish; give the warnings, and the kinds of the records there are."""
        publishing = self.publisher.publish(finished)
        self.clock.advance(PATIENCE)
        warnings = self.successResultOf(publishing)
        self.store.fail_reads = False
        return warnings, [record.kind for record in self.successResultOf(self.store.event_log.read(MANIFEST, 0, 10))]

    def test_records(self) -> None:
        """A success, a failure and a start are each a record, and the state file is there before the answer."""
        failed = {"status": "error", "stage": "parse", "error": "no"}
        for more in ({}, failed, {"source": "start"}, {**failed, "source": "start"}):
            self.published(self.report(**more))
        warnings, kinds = self.published(self.report())
        self.assertEqual(warnings, [])
        kinds_of_starts = ["generation_started", "reload_failed"]
        self.assertEqual(kinds, ["reload_succeeded", "reload_failed", *kinds_of_starts, "reload_succeeded"])
        self.assertTrue(os.path.exists(self.path))

    def test_counts_of_what_did_not_change(self) -> None:
        """A record holds the number of unchanged triggers, not their names."""
        many = tuple(f"t{number}" for number in range(10_000))
        payload = to_builtins(record_of(self.report(unchanged=many, added=("a",))))
        self.assertEqual(payload["summary"], {"added": ("a",), "modified": (), "removed": (), "unchanged": 10_000})
        self.assertEqual((payload["merged_requests"], payload["stages_ms"]), (3, {"parse": 500.0}))

    def test_nothing_can_be_written(self) -> None:
        """A full disk, or one that hangs, is a warning for each, and keeps the caller waiting no longer than that."""
        self.store.fail_writes = True
        self.threads.call = lambda work: fail(OSError("disk full"))
        warnings, kinds = self.published(self.report())
        self.assertEqual((len(warnings), kinds), (2, []))
        self.threads.call = lambda work: Deferred()
        self.patch(self.store.event_log, "append", lambda *_: Deferred())
        warnings, _ = self.published(self.report())
        self.assertEqual(len(warnings), 2)
