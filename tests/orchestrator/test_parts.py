"""The small parts: settings that a reload applies, readiness, the digest key, memory, limits, what is published."""

from __future__ import annotations

import gc
import os
import resource
import stat
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.model import NormalizedEvent
from harn.dispatch.dispatcher import Dispatcher
from harn.errors import EventLogUnavailable, GateShut
from harn.lifecycle import Lifecycle
from harn.listener.admission import Admission
from harn.listener.connection_limit import SURPLUS
from harn.listener.site import HarnSite
from harn.observability.metrics import Metrics
from harn.options import ServeOptions
from harn.orchestrator.assemble import admission_defaults, make_sink
from harn.orchestrator.hash_key import read_or_make_key
from harn.orchestrator.process import (
    FREEZE_AFTER,
    LEAST,
    RESERVED,
    Freezer,
    connections_within,
    open_files,
    raise_open_files,
)
from harn.orchestrator.publish import MANIFEST, PATIENCE, Publisher, manifest_payload
from harn.orchestrator.readiness import DRAINING, EVENT_LOG_AWAY, INTERPRETER_DOWN, Readiness
from harn.orchestrator.settings import REMEMBERED, LiveSettings
from harn.orchestrator.state_file import StateFile
from harn.reload.hooks import Finished
from harn.reload.report import ReloadReport
from harn.testing.stores.pumped import PumpedStore
from harn.triggers.registry import Registry
from tests.reload.fakes import START
from tests.reload.world import World, fake


class LiveSettingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(Path(self.mktemp()))
        clock = self.world.clock
        self.options = ServeOptions(manifest="", manifest_name="", state_dir="", host="", port=0)
        self.admission = Admission(clock)
        self.kept: list[Any] = []
        self.patch(self.admission, "apply", lambda settings, ids: self.kept.append((settings, set(ids))))
        self.dispatcher = Dispatcher(clock, self.world.store, Registry(Lifecycle()), Lifecycle(), lambda: 0.0)
        self.settings = self.make(self.options)
        self.world.told.adopted = []
        hooks = self.world.coordinator._hooks
        self.world.coordinator._hooks = evolve(hooks, adopted=lambda candidate: self.settings.apply(candidate))

    def make(self, options: ServeOptions) -> LiveSettings:
        settings = LiveSettings(options=options, admission=self.admission, dispatcher=self.dispatcher)
        place: Any = None
        settings.site = HarnSite(self.world.clock, self.world.metrics, place, place)
        return settings

    def adopt(self, head: str, *triggers: str) -> None:
        self.world.manifest(*(triggers or (fake("a"),)), head=head)
        asked = self.world.reload() if self.world.coordinator.current else self.world.start()
        report = self.successResultOf(asked)
        self.assertTrue(report.ok, report)

    def test_applied(self) -> None:
        """Every setting of a new generation is in force when it serves."""
        self.world.environ["HARN_ORCHESTRATOR_API_KEYS"] = "key"
        self.adopt(
            """
            [orchestrator]
            allowed_origins = ["https://a.example", "https://b.example"]
            max_body_bytes = 77
            pumps = { max_outstanding = 3 }
            retention = { events = "1h", dead = "2h", max_bytes = 5 }
            reload = { drain_timeout = "9s" }
            admission = { rate = 2 }
            """.replace("            ", "")
        )
        settings = self.settings
        self.assertEqual(settings.site.max_body_bytes, 77)
        self.assertEqual(settings.site.origins, {b"https://a.example", b"https://b.example"})
        self.assertEqual((self.dispatcher.max_outstanding, settings.drain_timeout()), (3, 9.0))
        retention = settings.retention()
        self.assertEqual((retention.events, retention.dead, retention.max_bytes), (3600.0, 7200.0, 5))
        self.assertEqual((self.kept[0][0].rate, self.kept[0][1]), (2, {"a"}))
        self.assertIsNot(settings.current_authenticator(), self.make(self.options).current_authenticator())
        self.adopt("[orchestrator]\n")
        self.assertEqual((settings.site.max_body_bytes, self.dispatcher.max_outstanding), (10_485_760, 64))
        self.assertIsNone(settings.site.origins)

    def test_flags_win(self) -> None:
        """A flag of the command line wins over the manifest."""
        self.settings = self.make(evolve(self.options, pump_max_outstanding=9))
        self.adopt("[orchestrator.pumps]\nmax_outstanding = 3\n")
        self.assertEqual(self.dispatcher.max_outstanding, 9)

    def test_rates_of_removed_triggers(self) -> None:
        """The rate of a trigger that was removed is remembered for a day, unless it comes back."""
        self.adopt("", fake("a"), fake("b"), fake("c"))
        self.adopt("", fake("a"))
        self.assertEqual(self.kept[-1][1], {"a", "b", "c"})
        self.adopt("", fake("a"), fake("c"))
        self.world.clock.advance(REMEMBERED)
        self.adopt("", fake("c"))
        self.assertEqual(self.kept[-1][1], {"a", "c"})


class ReadinessTests(SynchronousTestCase):
    def test_reasons(self) -> None:
        """A phase is the only reason; else everything that is away is named."""
        up = {"store": True, "interpreter": True}
        readiness = Readiness(lambda: up["store"], lambda: up["interpreter"])
        self.assertEqual(readiness.reasons(), ["starting"])
        readiness.phase = None
        self.assertEqual(readiness.reasons(), [])
        up.update(store=False, interpreter=False)
        self.assertEqual(readiness.reasons(), [EVENT_LOG_AWAY, INTERPRETER_DOWN])
        readiness.phase = DRAINING
        self.assertEqual(readiness.reasons(), [DRAINING])


class SinkTests(SynchronousTestCase):
    def test_events_of_connectors(self) -> None:
        """An event is accepted by the newest version, once for its key, and without a trigger it is refused."""
        world = World(Path(self.mktemp()))
        world.manifest(fake("a"))
        self.successResultOf(world.start())
        sink = make_sink(world.clock, world.registry, world.intake, world.lifecycle)
        for _ in range(2):
            self.successResultOf(sink("a", NormalizedEvent(kind="tick", dedupe_key="12:00")))
        self.assertEqual(len(world.calls), 1)
        version = world.version("a")
        self.assertEqual((world.registry.counts.of(version.key).received, version.in_flight), (2, 1))
        self.failureResultOf(sink("b", NormalizedEvent(kind="tick", dedupe_key="12:00")), GateShut)
        world.store.fail_writes = True
        failed = sink("a", NormalizedEvent(kind="tick", dedupe_key="12:01"))
        self.failureResultOf(failed, EventLogUnavailable)
        self.assertEqual(world.version("a").in_flight, 1)


class SurroundingsTests(SynchronousTestCase):
    def test_key(self) -> None:
        """The key is made once, for its owner's eyes; one of another length is made anew."""
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
            freezer.adopted(fresh)
            freezer.adopted(0)
            before = len(frozen)
            clock.advance(0)
            seen.append(len(frozen) - before)
        self.assertEqual((seen, clock.getDelayedCalls()), ([1, 0, 1, 0, 1], []))


class PublisherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.store = PumpedStore(self.clock)
        self.store.open()
        self.path = os.path.join(self.mktemp(), "state.json")
        os.mkdir(os.path.dirname(self.path))
        self.in_thread: Any = lambda work: succeed(work())
        state_file = StateFile(
            self.path, self.clock, lambda work: self.in_thread(work), lambda: lambda: {"status": "running"}
        )
        self.publisher = Publisher(self.clock, self.store, state_file, Metrics())

    def report(self, **more: Any) -> Finished:
        values: dict[str, Any] = {"status": "ok", "source": "cli", "actor": "me", "generation": 2, "digest": "sha256:x"}
        return Finished(ReloadReport(**{**values, **more}), {"parse": 0.5}, merged=3)

    def published(self, finished: Finished) -> tuple[list[str], list[str]]:
        """Publish; give the warnings, and the kinds of the records there are."""
        publishing = self.publisher.reload_ended(finished)
        self.clock.advance(PATIENCE)
        warnings = self.successResultOf(publishing)
        self.store.fail_reads = False
        return warnings, [record.kind for record in self.successResultOf(self.store.read(MANIFEST, 0, 10))]

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
        payload = manifest_payload(self.report(unchanged=many, added=("a",)))
        self.assertEqual(payload["summary"], {"added": ["a"], "modified": [], "removed": [], "unchanged": 10_000})
        self.assertEqual((payload["merged_requests"], payload["stages_ms"]), (3, {"parse": 500.0}))

    def test_nothing_can_be_written(self) -> None:
        """A full disk, or one that hangs, is a warning for each, and keeps the caller waiting no longer than that."""
        self.store.fail_writes = True
        self.in_thread = lambda work: fail(OSError("disk full"))
        warnings, kinds = self.published(self.report())
        self.assertEqual((len(warnings), kinds), (2, []))
        self.in_thread = lambda work: Deferred()
        self.patch(self.store, "append", lambda *_: Deferred())
        warnings, _ = self.published(self.report())
        self.assertEqual(len(warnings), 2)
