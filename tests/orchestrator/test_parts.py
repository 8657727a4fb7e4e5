"""The small parts: the digest key, memory, limits, what is published."""

from __future__ import annotations

import gc
import os
import resource
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msgspec import to_builtins
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.listener.connection_limit import SURPLUS
from harn.listener.descriptors import LEAST, RESERVED, connections_within, open_files
from harn.listener.feature import admission_defaults
from harn.observability.metrics import Metrics
from harn.orchestrator.process import (
    FREEZE_AFTER,
    Freezer,
    raise_open_files,
)
from harn.orchestrator.publish import MANIFEST, PATIENCE, Publisher, record_of
from harn.orchestrator.state_directory import read_or_make_key
from harn.orchestrator.state_file import StateFile
from harn.reload.report import Finished, ReloadReport
from harn.server import RecordWriter
from harn.testing.stores.pumped import PumpedStore
from harn.triggers.reconcile import Plan
from tests.reload.fakes import START


class SurroundingsTests(SynchronousTestCase):
    def test_key(self) -> None:
        """The key is made once, readable by its owner only; one of another length is made again."""
        directory = self.mktemp()
        os.mkdir(directory)
        key = read_or_make_key(directory)
        self.assertEqual((len(key), read_or_make_key(directory)), (32, key))
        path = Path(directory) / "digest.key"
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        path.write_bytes(b"short")
        self.assertEqual(len(read_or_make_key(directory)), 32)
        self.assertRaises(OSError, read_or_make_key, "/nowhere/at/all")

    def test_admission_defaults(self) -> None:
        """Rates of the environment count when they are positive numbers."""
        prefix = "HARN_ORCHESTRATOR_INGEST_"
        environ = {
            f"{prefix}GLOBAL_CAPACITY": "10",
            f"{prefix}PER_SOURCE_CAPACITY": "-1",
            f"{prefix}REFILL_PER_SEC": "x",
        }
        self.assertEqual(admission_defaults(environ), {"global_capacity": 10.0})

    def test_open_files(self) -> None:
        """The soft limit is raised towards what is wanted and never lowered, and never above the hard one."""
        limits = [(256, 4096)]
        self.patch(resource, "getrlimit", lambda which: limits[-1])
        self.patch(resource, "setrlimit", lambda which, pair: limits.append(pair))
        self.assertEqual(raise_open_files(300), 300)
        self.assertEqual(raise_open_files(200), 300)
        self.assertEqual(raise_open_files(), 4096)
        self.assertEqual(limits, [(256, 4096), (300, 4096), (4096, 4096)])

    def test_connections_within(self) -> None:
        """Connections leave a reserve of the open files to all that must go on; there are always a few."""
        self.assertEqual(connections_within(1024, 40), 1024 - 40 - RESERVED)
        self.assertEqual(connections_within(64, 40), LEAST)
        self.assertGreater(connections_within(resource.RLIM_INFINITY, 40), 10_000)
        self.assertGreater(RESERVED, SURPLUS + 40)
        before = open_files()
        with open(os.devnull):
            self.assertEqual(open_files(), before + 1)

    def test_freezer(self) -> None:
        """It freezes after the turn, the first time and when much is new, once for all that came before."""
        frozen: list[int] = []
        self.patch(gc, "freeze", lambda: frozen.append(1))
        clock = Clock()
        freezer = Freezer(clock)
        seen = []
        for fresh in (1, 1, FREEZE_AFTER - 1, 1, FREEZE_AFTER):
            freezer.adopted(adopting(fresh))
            freezer.adopted(adopting(0))
            before = len(frozen)
            clock.advance(0)
            seen.append(len(frozen) - before)
        self.assertEqual((seen, clock.getDelayedCalls()), ([1, 0, 1, 0, 1], []))


def adopting(fresh: int) -> Any:
    """Make the event of a generation with so many new bindings."""
    return SimpleNamespace(candidate=SimpleNamespace(plan=Plan(added=tuple(map(str, range(fresh))))))


class PublisherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.store = PumpedStore(self.clock)
        self.store.open()
        self.path = os.path.join(self.mktemp(), "state.json")
        os.mkdir(os.path.dirname(self.path))
        self.in_thread: Any = lambda work: succeed(work())
        status: Any = SimpleNamespace(snapshot=lambda: SimpleNamespace(encode=lambda: b"{}"))
        state_file = StateFile(self.path, self.clock, lambda work: self.in_thread(work), status)
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
        self.in_thread = lambda work: fail(OSError("disk full"))
        warnings, kinds = self.published(self.report())
        self.assertEqual((len(warnings), kinds), (2, []))
        self.in_thread = lambda work: Deferred()
        self.patch(self.store.event_log, "append", lambda *_: Deferred())
        warnings, _ = self.published(self.report())
        self.assertEqual(len(warnings), 2)
